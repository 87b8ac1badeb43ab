#include "attention_input.hpp"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <random>
#include <utility>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "reference/convert.hpp"
#include "selection.hpp"

namespace tilewright::tools {
namespace {

using problem::Tiling;

[[noreturn]] void refuse(std::string problem, std::string allowed, std::string remedy) {
  throw Error(ErrorCode::invalid_argument, std::move(problem), std::move(allowed), std::move(remedy));
}

HostTensor take(Safetensors& file, const std::string& name) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    refuse(fmt::format("the input has no tensor '{}'", name), "q, k and v are needed",
           "name the input's tensors q, k and v");
  return std::move(found->second);
}

ElementType element_type(DataType type) { return type == DataType::bf16 ? ElementType::bf16 : ElementType::f16; }

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
    refuse(fmt::format("{} has the shape {}", name, shape_text(shape)),
           problem.layout == Layout::raster
               ? "[batch, T, H, W, heads, head_dim] and [batch, tokens, heads, head_dim] are allowed for layout=raster"
               : "[batch, heads, tokens, head_dim] is allowed for layout=tiled",
           "bring the tensor into this shape, or change the problem's layout");
  if (tensor.type != element_type(problem.dtype) || shape.back() != problem.head_dim)
    refuse(fmt::format("{} is {} with head_dim {}", name, to_string(tensor.type), shape.back()),
           fmt::format("the problem says dtype={}, head_dim={}", to_string(problem.dtype), problem.head_dim),
           "change the problem's line, or convert the tensor");
  if (shape.size() == plain_rank)
    return {view_of(tensor, name), std::nullopt};
  constexpr std::int64_t axis_limit = std::int64_t{1} << 31;
  if (std::any_of(shape.begin() + 1, shape.begin() + 4, [](std::int64_t extent) { return extent >= axis_limit; }))
    refuse(fmt::format("{} has the shape {}", name, shape_text(shape)), "canvas extents below 2^31 are allowed",
           "cut the video");
  const Canvas canvas{static_cast<std::int32_t>(shape[1]), static_cast<std::int32_t>(shape[2]),
                      static_cast<std::int32_t>(shape[3])};
  const TensorView view =
      TensorView::contiguous(tensor.bytes.data(), problem.dtype, {shape[0], canvas.volume(), shape[4], shape[5]});
  return {view, canvas};
}

/// The canvas that option and shape agree on. Empty where neither says it.
std::optional<Canvas> agree(const std::string& option, const std::string& text, std::optional<Canvas> of_shape) {
  if (text.empty())
    return of_shape;
  const Canvas given = extent_option(option, text);
  if (of_shape && *of_shape != given)
    throw UsageError(fmt::format("{} is {}", option, text),
                     fmt::format("the tensors' shape says {}", to_string(*of_shape)), "leave the option out");
  return given;
}

Canvas require_canvas(const std::string& option, const std::string& text, std::optional<Canvas> of_shape) {
  const auto canvas = agree(option, text, of_shape);
  if (!canvas)
    throw UsageError(fmt::format("{} is missing", option), "the pattern needs the video's extents in tokens, TxHxW",
                     fmt::format("add {} TxHxW", option));
  return *canvas;
}

void refuse_option(bool given, std::string_view option, const Problem& problem) {
  if (given)
    throw UsageError(fmt::format("{} is given for {}", option, to_string(problem)), "the pattern has no use for it",
                     "leave the option out, or change the problem's pattern");
}

void refuse_foreign_options(const PatternChoice& choice, const Problem& problem) {
  if (problem.pattern != PatternKind::sliding_tile) {
    refuse_option(!choice.windows.empty(), "--windows", problem);
    refuse_option(choice.text_length.has_value(), "--text-length", problem);
  }
  if (problem.pattern != PatternKind::block_list) {
    refuse_option(!choice.lists.empty(), "--lists", problem);
    refuse_option(choice.topk.has_value(), "--topk", problem);
    refuse_option(!choice.key_canvas.empty(), "--key-canvas", problem);
  }
}

std::vector<Window> windows_of(const Problem& problem, const PatternChoice& choice, std::int64_t heads) {
  if (problem.window != Window{}) {
    if (!choice.windows.empty())
      throw UsageError("--windows is given although the problem names its window", "one of the two is allowed",
                       "leave the option out, or write window=per_head");
    return {problem.window};
  }
  if (choice.windows.empty())
    throw UsageError("the problem says window=per_head, and --windows is missing",
                     "one window for all heads, or one a head, is needed", "add --windows 3x3x3,...");
  std::vector<Window> windows = windows_option(choice.windows);
  if (windows.size() == 1)
    windows.resize(static_cast<std::size_t>(heads), windows.front()); // a single one would be baked into the kernel
  return windows;
}

SlidingTile sliding_tile(const Problem& problem, const PatternChoice& choice, std::int64_t heads,
                         const Canvas& canvas) {
  if (problem.text == Text::present && !choice.text_length)
    throw UsageError("the problem has text, and --text-length is missing", "0 or more valid text tokens are allowed",
                     "add --text-length N");
  if (problem.text == Text::absent && choice.text_length)
    throw UsageError("--text-length is given for a problem with text=0", "text=1 takes text", "change the problem");
  return {.canvas = canvas,
          .tile = problem.tile,
          .windows = windows_of(problem, choice, heads),
          .text_length = choice.text_length};
}

void check_named(const Problem& problem, const AttentionInput& input) {
  const Problem actual = Runtime::problem_of(input.call, input.pattern);
  const auto variants = closed_variants(problem);
  if (std::find(variants.begin(), variants.end(), actual) == variants.end())
    refuse(fmt::format("the problem is {}", to_string(problem)),
           fmt::format("with these tensors and options it is {}", to_string(actual)),
           "leave out what the tensors decide (text, edges), or correct it");
}

std::optional<Safetensors> list_file(const PatternChoice& choice) {
  if (choice.lists.empty())
    return std::nullopt;
  return read_safetensors(choice.lists);
}

/// Sizes of each tile's valid rows, where the file of lists has them.
std::optional<TensorView> read_sizes(const Safetensors& file, const char* name, std::vector<std::int32_t>& sizes) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    return std::nullopt;
  sizes = to_int32(found->second, name);
  const auto& shape = found->second.shape;
  if (shape.size() == 1)
    return TensorView::contiguous(sizes.data(), DataType::int32, {shape[0]});
  if (shape.size() == 2)
    return TensorView::contiguous(sizes.data(), DataType::int32, {shape[0], shape[1]});
  refuse(fmt::format("{} has the shape {}", name, shape_text(shape)), "[tiles] and [batch, tiles] are allowed",
         "correct the file of block lists");
}

/// lists must be bound to the pattern by the caller's choose(queries, keys).
template <typename Choose>
BlockList block_list(const Problem& problem, AttentionInput& input, const PatternChoice& choice, const Canvas& canvas,
                     const Canvas& key_canvas, Choose choose) {
  BlockList pattern{.canvas = canvas, .tile = problem.tile};
  pattern.key_canvas = key_canvas;
  pattern.key_tile = problem.key_tile;
  const Tiling queries(canvas, problem.tile), keys(key_canvas, problem.key_tile);
  if (const auto file = list_file(choice)) {
    input.lists = read_lists(*file, queries.tile_count(), keys.tile_count());
    pattern.query_sizes = read_sizes(*file, "query_sizes", input.query_sizes);
    pattern.key_sizes = read_sizes(*file, "key_sizes", input.key_sizes);
  } else {
    input.lists = choose(queries, keys);
  }
  input.lists.bind(pattern);
  return pattern;
}

std::int64_t require_topk(const PatternChoice& choice) {
  if (!choice.topk)
    throw UsageError("a block list is asked for, and neither --lists nor --topk is given",
                     "the lists come from a file or from a selection", "add --lists FILE or --topk K");
  return *choice.topk;
}

/// The call on q, k, v as they lie, and poisoned results for it.
void bind_call(AttentionInput& input, const Problem& problem, const TensorView& q, const TensorView& k,
               const TensorView& v) {
  const bool raster = problem.layout == Layout::raster;
  const std::int64_t tokens = q.extents[raster ? 1 : 2], heads = q.extents[raster ? 2 : 1];
  input.out = make_poisoned(input.q.type, input.q.shape);
  input.lse = make_poisoned(ElementType::f32, {q.extents[0], heads, tokens});
  TensorView out = q;
  out.data = input.out.bytes.data();
  input.call = {.q = q, .k = k, .v = v, .out = out, .lse = view_of(input.lse, "lse"), .layout = problem.layout};
}

std::int64_t heads_of(const AttentionForward& call) { return call.q.extents[call.layout == Layout::raster ? 2 : 1]; }

HostTensor random_tensor(DataType type, std::vector<std::int64_t> shape, std::uint64_t seed) {
  HostTensor tensor = make_poisoned(element_type(type), std::move(shape));
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<float> uniform(std::numeric_limits<float>::min(), 1.0F);
  const std::span<std::uint16_t> values = tensor.as<std::uint16_t>();
  for (std::size_t i = 0; i < values.size(); i += 2) { // Box and Muller: two normal numbers from two uniform ones
    const float radius = std::sqrt(-2 * std::log(uniform(random)));
    const float angle = 2 * std::numbers::pi_v<float> * uniform(random);
    values[i] = reference::encode(type, radius * std::cos(angle));
    if (i + 1 < values.size())
      values[i + 1] = reference::encode(type, radius * std::sin(angle));
  }
  return tensor;
}

} // namespace

AttentionInput read_attention_input(const Problem& problem, Safetensors&& file, const PatternChoice& choice) {
  refuse_foreign_options(choice, problem);
  AttentionInput input;
  input.q = take(file, "q");
  input.k = take(file, "k");
  input.v = take(file, "v");
  const VideoView q = video_view(input.q, "q", problem), k = video_view(input.k, "k", problem),
                  v = video_view(input.v, "v", problem);
  bind_call(input, problem, q.view, k.view, v.view);
  if (problem.pattern == PatternKind::sliding_tile) {
    input.pattern =
        sliding_tile(problem, choice, heads_of(input.call), require_canvas("--canvas", choice.canvas, q.canvas));
  } else if (problem.pattern == PatternKind::block_list) {
    const Canvas canvas = require_canvas("--canvas", choice.canvas, q.canvas);
    const auto key_canvas = agree("--key-canvas", choice.key_canvas, k.canvas);
    input.pattern = block_list(problem, input, choice, canvas, key_canvas.value_or(canvas),
                               [&](const Tiling& queries, const Tiling& keys) {
                                 return select_topk(input.call, queries, keys, require_topk(choice));
                               });
  }
  check_named(problem, input);
  return input;
}

AttentionInput make_random_input(const Problem& problem, const RandomShape& shape, const PatternChoice& choice) {
  refuse_foreign_options(choice, problem);
  if (problem.pattern != PatternKind::dense && (shape.tokens || shape.key_tokens))
    throw UsageError("--tokens or --key-tokens is given for a pattern with a canvas", "the canvas says how many",
                     "use --canvas TxHxW");
  if (problem.pattern == PatternKind::dense && !shape.tokens)
    throw UsageError("--tokens is missing", "a dense problem needs the number of tokens", "add --tokens N");
  const bool dense = problem.pattern == PatternKind::dense;
  const Canvas canvas = dense ? Canvas{} : require_canvas("--canvas", choice.canvas, std::nullopt);
  const Canvas key_canvas = dense ? Canvas{} : agree("--key-canvas", choice.key_canvas, std::nullopt).value_or(canvas);
  const std::int64_t text_rows = choice.text_length.value_or(0);
  const auto rows = [&](const Canvas& extents, const Tile& tile) {
    return Tiling(extents, tile).token_count(problem.layout) + text_rows;
  };
  const std::int64_t query_rows = dense ? *shape.tokens : rows(canvas, problem.tile);
  const std::int64_t key_rows = dense ? shape.key_tokens.value_or(query_rows) : rows(key_canvas, problem.key_tile);
  const std::int64_t kv_heads = shape.kv_heads.value_or(shape.heads);

  const auto tensor = [&](std::int64_t tokens, std::int64_t heads, std::uint64_t salt) {
    const bool raster = problem.layout == Layout::raster;
    constexpr std::uint64_t tensors = 3;
    return random_tensor(problem.dtype,
                         {shape.batch, raster ? tokens : heads, raster ? heads : tokens, problem.head_dim},
                         shape.seed * tensors + salt);
  };
  AttentionInput input;
  input.q = tensor(query_rows, shape.heads, 0);
  input.k = tensor(key_rows, kv_heads, 1);
  input.v = tensor(key_rows, kv_heads, 2);
  bind_call(input, problem, view_of(input.q, "q"), view_of(input.k, "k"), view_of(input.v, "v"));
  if (problem.pattern == PatternKind::sliding_tile)
    input.pattern = sliding_tile(problem, choice, shape.heads, canvas);
  else if (problem.pattern == PatternKind::block_list)
    input.pattern =
        block_list(problem, input, choice, canvas, key_canvas, [&](const Tiling& queries, const Tiling& keys) {
          return random_lists(shape.batch, shape.heads, queries.tile_count(), keys.tile_count(), require_topk(choice),
                              shape.seed);
        });
  check_named(problem, input);
  return input;
}

Pattern keep_everything(const AttentionInput& input, HostLists& lists) {
  if (const auto* sliding = std::get_if<SlidingTile>(&input.pattern)) {
    SlidingTile wide = *sliding;
    const Extent3 tiles = Tiling(sliding->canvas, sliding->tile).tiles_per_axis();
    wide.windows = {{2 * tiles.t + 1, 2 * tiles.h + 1, 2 * tiles.w + 1}};
    return wide;
  }
  if (const auto* blocks = std::get_if<BlockList>(&input.pattern)) {
    BlockList complete = *blocks;
    const Tiling keys(blocks->key_canvas.value_or(blocks->canvas), blocks->key_tile.value_or(blocks->tile));
    lists = complete_lists(input.lists.query_tiles, keys.tile_count());
    lists.bind(complete);
    return complete;
  }
  return input.pattern;
}

} // namespace tilewright::tools
