#include "attention_input.hpp"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "selection.hpp"

namespace tilewright::tools {
namespace {

using problem::Tiling;

[[noreturn]] void refuse_input(std::string problem, std::string allowed, std::string remedy) {
  throw Error(ErrorCode::invalid_argument, std::move(problem), std::move(allowed), std::move(remedy));
}

HostTensor take(Safetensors& file, const std::string& name) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    refuse_input(fmt::format("the input has no tensor '{}'", name), "q, k and v are needed",
                 "name the input's tensors q, k and v");
  return std::move(found->second);
}

/// A tensor as the operators take it, of rank 4, and the canvas where its shape tells it.
struct VideoView {
  TensorView view;
  std::optional<Canvas> canvas;
};

VideoView video_view(HostTensor& tensor, const char* name, const Problem& problem) {
  constexpr std::size_t plain_rank = 4, video_rank = 6;
  const auto& shape = tensor.shape;
  const bool known_rank =
      shape.size() == plain_rank || (shape.size() == video_rank && problem.layout == Layout::raster);
  const bool positive = std::all_of(shape.begin(), shape.end(), [](std::int64_t extent) { return extent > 0; });
  if (!known_rank || !positive)
    refuse_input(
        fmt::format("{} has the shape {}", name, shape_text(shape)),
        problem.layout == Layout::raster
            ? "[batch, T, H, W, heads, head_dim] and [batch, tokens, heads, head_dim] are allowed for layout=raster"
            : "[batch, heads, tokens, head_dim] is allowed for layout=tiled",
        "bring the tensor into this shape, or change the problem's layout");
  if (tensor.type != element_type(problem.dtype) || shape.back() != problem.head_dim)
    refuse_input(fmt::format("{} is {} with head_dim {}", name, to_string(tensor.type), shape.back()),
                 fmt::format("the problem says dtype={}, head_dim={}", to_string(problem.dtype), problem.head_dim),
                 "change the problem's line, or convert the tensor");
  if (shape.size() == plain_rank)
    return {view_of(tensor, name), std::nullopt};
  constexpr std::int64_t axis_limit = std::int64_t{1} << 31;
  if (std::any_of(shape.begin() + 1, shape.begin() + 4, [](std::int64_t extent) { return extent >= axis_limit; }))
    refuse_input(fmt::format("{} has the shape {}", name, shape_text(shape)), "canvas extents below 2^31 are allowed",
                 "cut the video");
  const Canvas canvas{static_cast<std::int32_t>(shape[1]), static_cast<std::int32_t>(shape[2]),
                      static_cast<std::int32_t>(shape[3])};
  const TensorView view =
      TensorView::contiguous(tensor.bytes.data(), problem.dtype, {shape[0], canvas.volume(), shape[4], shape[5]});
  return {view, canvas};
}

} // namespace

ElementType element_type(DataType type) { return type == DataType::bf16 ? ElementType::bf16 : ElementType::f16; }

AttentionInput::AttentionInput(const Problem& problem, HostTensor query, HostTensor key, HostTensor value)
    : q(std::move(query)), k(std::move(key)), v(std::move(value)) {
  const VideoView query_view = video_view(q, "q", problem), key_view = video_view(k, "k", problem);
  const bool raster = problem.layout == Layout::raster;
  const auto& extents = query_view.view.extents;
  out = make_poisoned(q.type, q.shape);
  lse = make_poisoned(ElementType::f32, {extents[0], extents[raster ? 2 : 1], extents[raster ? 1 : 2]});
  TensorView out_view = query_view.view;
  out_view.data = out.bytes.data();
  call = {.q = query_view.view,
          .k = key_view.view,
          .v = video_view(v, "v", problem).view,
          .out = out_view,
          .lse = view_of(lse, "lse"),
          .layout = problem.layout};
  canvases = {query_view.canvas, key_view.canvas};
}

void AttentionInput::set_pattern(const Problem& problem, const PatternChoice& choice, const ListMaker& make_lists) {
  relation = make_pattern(problem, choice, heads(), canvases, make_lists);
  const Problem actual = Runtime::problem_of(call, relation.pattern);
  const auto variants = closed_variants(problem);
  if (std::find(variants.begin(), variants.end(), actual) == variants.end())
    refuse_input(fmt::format("the problem is {}", to_string(problem)),
                 fmt::format("with these tensors and options it is {}", to_string(actual)),
                 "leave out what the tensors decide (text, edges), or correct it");
}

AttentionInput read_attention_input(const Problem& problem, Safetensors&& file, const PatternChoice& choice) {
  AttentionInput input(problem, take(file, "q"), take(file, "k"), take(file, "v"));
  input.set_pattern(problem, choice, [&](const Tiling& queries, const Tiling& keys, std::int64_t topk) {
    return select_topk(input.call, queries, keys, topk);
  });
  return input;
}

} // namespace tilewright::tools
