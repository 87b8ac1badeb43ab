#include "video_sparse_input.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "progress.hpp"
#include "reference/tensor.hpp"
#include <tilewright/reference.hpp>

namespace tilewright::tools {
namespace {

using problem::Tiling;

/// --sparsity as a topk, where it is given: then the canvas has to be known from the option.
PatternChoice with_topk(const Problem& problem, PatternChoice choice, std::optional<Canvas> canvas) {
  if (!choice.lists.empty())
    throw UsageError("--lists is given for video_sparse_attention", "the operator selects the tiles itself",
                     "leave it out, or use attention_forward:pattern=block_list");
  if (!choice.sparsity)
    return choice;
  if (!choice.key_canvas.empty())
    canvas = extent_option("--key-canvas", choice.key_canvas);
  else if (!choice.canvas.empty())
    canvas = extent_option("--canvas", choice.canvas);
  if (!canvas)
    throw UsageError("--sparsity is given and the canvas is not known", "the canvas says how many tiles there are",
                     "add --canvas TxHxW, or use --topk");
  const Tiling keys(*canvas, problem.tile);
  const std::int64_t tiles = keys.tile_count();
  choice.topk = choice.sparsity_of == "tokens" ? std::min(topk_of_tokens(*choice.sparsity, canvas->volume()), tiles)
                                               : topk_of_tiles(*choice.sparsity, tiles);
  choice.sparsity.reset();
  return choice;
}

std::optional<Canvas> canvas_of(const Safetensors& file) {
  const auto found = file.tensors.find("k");
  constexpr std::size_t video_rank = 6;
  if (found == file.tensors.end() || found->second.shape.size() != video_rank)
    return std::nullopt;
  const auto& shape = found->second.shape;
  return Canvas{static_cast<std::int32_t>(shape[1]), static_cast<std::int32_t>(shape[2]),
                static_cast<std::int32_t>(shape[3])};
}

} // namespace

Problem fine_problem(const Problem& whole) {
  Problem fine = whole;
  fine.op = Operator::attention_forward;
  fine.blend = Blend::none;
  return fine;
}

VideoSparseInput::VideoSparseInput(const Problem& problem, AttentionInput attention,
                                   std::optional<HostTensor> gate_tensor)
    : base(std::move(attention)), gate(std::move(gate_tensor)) {
  const auto& lists = std::get<BlockList>(base.relation.pattern);
  call.q = base.call.q;
  call.k = base.call.k;
  call.v = base.call.v;
  call.out = base.call.out;
  call.lse = base.call.lse;
  call.layout = problem.layout;
  call.canvas = lists.canvas;
  call.tile = problem.tile;
  call.key_canvas = lists.key_canvas;
  call.topk = base.relation.lists.capacity;
  call.neighbours_share = problem.sharing == Sharing::neighbours;
  if (gate) {
    if (gate->bytes.size() != base.out.bytes.size() || gate->type != base.out.type)
      throw Error(ErrorCode::invalid_argument, fmt::format("gate has the shape {}", shape_text(gate->shape)),
                  fmt::format("the shape of q, {}, is allowed", shape_text(base.q.shape)), "correct the input");
    call.gate = call.out;
    call.gate->data = gate->bytes.data();
  }
}

VideoSparseInput read_video_sparse_input(const Problem& problem, const std::filesystem::path& path,
                                         const PatternChoice& choice) {
  Safetensors file = read_safetensors(path);
  std::optional<HostTensor> gate;
  if (problem.blend == Blend::gated) {
    const auto found = file.tensors.find("gate");
    if (found == file.tensors.end())
      throw UsageError("the input has no tensor 'gate'", "blend=gated needs one; blend=coarse does without",
                       "add blend=coarse to the problem's line");
    gate = std::move(found->second);
  }
  const PatternChoice chosen = with_topk(problem, choice, canvas_of(file));
  return {problem, read_attention_input(fine_problem(problem), std::move(file), chosen), std::move(gate)};
}

VideoSparseInput random_video_sparse_input(const Problem& problem, const RandomShape& shape,
                                           const PatternChoice& choice) {
  AttentionInput base = make_random_input(fine_problem(problem), shape, with_topk(problem, choice, std::nullopt));
  std::optional<HostTensor> gate;
  if (problem.blend == Blend::gated)
    gate = base.q; // as random as any
  return {problem, std::move(base), std::move(gate)};
}

AttentionReport run_video_sparse(Device& device, VideoSparseInput& input, const Problem& problem,
                                 const Comparison& comparison, GradientTensors* gradients) {
  AttentionReport report;
  report.device = device.name();
  const problem::Tiling keys(input.call.key_canvas.value_or(input.call.canvas), input.call.tile);
  report.kept_blocks = static_cast<double>(input.call.topk) / static_cast<double>(keys.tile_count());
  VideoSparseAttention host = input.call;
  if (gradients != nullptr) {
    host.fine = host.out;
    host.fine->data = nullptr; // on the device alone
  }
  const VideoSparseAttention call = device.place(host);
  {
    const Progress progress("preparing the kernels");
    report.preparation = device.prepare(call);
  }
  const auto variants = closed_variants(problem);
  const auto part_of = closed_variants(Runtime::problem_of(call)).back();
  if (std::find(variants.begin(), variants.end(), part_of) == variants.end())
    throw Error(ErrorCode::invalid_argument, fmt::format("the problem is {}", to_string(problem)),
                fmt::format("with these tensors and options it is {}", report.preparation.problem),
                "leave out what the tensors decide (edges), or correct it");
  {
    const Progress progress("attending on " + device.name());
    report.milliseconds = device.measure([&] { device.video_sparse_attention(call); });
  }
  device.collect(call.out, input.call.out);
  device.collect(*call.lse, *input.call.lse);
  if (gradients != nullptr)
    report.gradient = run_gradient(device, input, call, *gradients, comparison.own_reference);
  if (!comparison.own_reference && !comparison.dense_reference)
    return report;
  const Progress progress("comparing in float64");
  const auto actual = reference::read_tensor(input.call.out, input.call.layout);
  if (comparison.own_reference) {
    const reference::VideoSparseResult expected = reference::video_sparse_attention(input.call);
    report.error = reference::output_error(actual, expected.out);
    report.lse_error = reference::lse_error(reference::read_lse(*input.call.lse), expected.lse);
  }
  if (comparison.dense_reference) {
    const PatternInput everything = keep_everything(input.base.relation);
    report.dense_error =
        reference::output_error(actual, reference::attention_forward(input.base.call, everything.pattern).out);
  }
  return report;
}

} // namespace tilewright::tools
