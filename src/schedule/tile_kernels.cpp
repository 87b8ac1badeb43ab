#include "schedule/tile_kernels.hpp"

#include "schedule/reasons.hpp"

namespace tilewright::schedule::tile_kernels {
namespace {

constexpr std::int32_t word_bytes = 4;
constexpr std::int32_t element_bytes = 2; // bf16 and fp16
constexpr std::int32_t bits_of_word = 32;
constexpr std::int32_t strip_rows = 16; // of the matrix instruction
constexpr std::int32_t matrix_rows = 16;
constexpr std::int64_t quad_keys = 128; // key tiles that a warp of select_tiles looks at in one step

/// Ends a row 8 words behind a multiple of the 32 banks: the lanes of a fragment, 8 rows of 4 lanes, meet few
/// conflicts.
constexpr std::int32_t bank_shift = 8;

} // namespace

bool is_one(Operator op) noexcept {
  switch (op) {
  case Operator::pool_tiles:
  case Operator::select_tiles:
  case Operator::list_mask:
  case Operator::transpose_lists:
  case Operator::blend_backward:
  case Operator::coarse_backward_query:
  case Operator::coarse_backward_key:
    return true;
  default:
    return false;
  }
}

bool is_coarse_backward(Operator op) noexcept {
  return op == Operator::coarse_backward_query || op == Operator::coarse_backward_key;
}

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept {
  if (is_coarse_backward(problem.op)) {
    // templates/kernels/coarse_backward_*_sm80.cu: two tensors' rows of the own tiles, and of each stage's.
    const bool of_keys = problem.op == Operator::coarse_backward_key;
    const std::int32_t own = of_keys ? schedule.block_k : schedule.block_q;
    const std::int32_t step = of_keys ? schedule.block_q : schedule.block_k;
    constexpr std::int32_t statistics = 2; // of each query tile that keys walk past
    return 2 * (own + schedule.stages * step) * problem.head_dim * element_bytes +
           (of_keys ? schedule.stages * step * statistics * word_bytes : 0);
  }
  if (problem.op != Operator::select_tiles)
    return 0;
  // templates/kernels/select_tiles_sm80.cu: each row's reference and inverse sum, each warp's part of the output.
  constexpr std::int32_t row_words = 2, part_columns = 32, padding = 4;
  return schedule.block_q * (row_words + schedule.warps * (part_columns + padding)) * word_bytes;
}

std::int32_t strip_stride(std::int64_t key_tiles) noexcept {
  return static_cast<std::int32_t>((key_tiles + quad_keys - 1) / quad_keys * quad_keys) + bank_shift;
}

std::int64_t strip_bytes(const Schedule& schedule, std::int64_t key_tiles) noexcept {
  return std::int64_t{schedule.block_q} * strip_stride(key_tiles) * word_bytes;
}

std::int64_t bit_bytes(const Schedule& schedule, std::int64_t query_tiles) noexcept {
  return schedule.block_k * ((query_tiles + bits_of_word - 1) / bits_of_word) * word_bytes;
}

std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule,
                                         const ProcessorLimits& limits) {
  Reasons reasons;
  const std::int32_t warps = schedule.warps;
  reasons.add_if(schedule.family != Family::sm80, "{} has family sm80 only", to_string(problem.op));
  reasons.add_if(warps != 4 && warps != 8 && warps != 16, "warps={} is not 4, 8 or 16", warps);
  reasons.add_if(schedule.blocks_per_processor < 1 || schedule.blocks_per_processor * warps > 64,
                 "blocks_per_processor={} is not 1 to {}", schedule.blocks_per_processor, 64 / (warps > 0 ? warps : 1));
  reasons.add_if(problem.op == Operator::select_tiles && schedule.block_q != strip_rows, "block_q={} is not {}",
                 schedule.block_q, strip_rows);
  if (is_coarse_backward(problem.op)) {
    const bool of_keys = problem.op == Operator::coarse_backward_key;
    const std::int32_t own = of_keys ? schedule.block_k : schedule.block_q;
    const std::int32_t step = of_keys ? schedule.block_q : schedule.block_k;
    reasons.add_if(own != warps * matrix_rows, "{}={} is not 16 rows for each of {} warps",
                   of_keys ? "block_k" : "block_q", own, warps);
    reasons.add_if(step != 32 && step != 64, "{}={} is not 32 or 64", of_keys ? "block_q" : "block_k", step);
    reasons.add_if(schedule.stages < 2 || schedule.stages > 4, "stages={} is not 2 to 4", schedule.stages);
  }
  reasons.add_if(problem.op == Operator::transpose_lists && (schedule.block_k < 32 || schedule.block_k % 32 != 0),
                 "block_k={} is no multiple of 32", schedule.block_k);
  if (!reasons.empty())
    return reasons.take();
  const std::int32_t shared = shared_memory_bytes(problem, schedule);
  reasons.add_if(shared > limits.shared_per_block, "it needs {} bytes of shared memory, a thread block has {}", shared,
                 limits.shared_per_block);
  return reasons.take();
}

std::vector<Schedule> schedules(const Problem& problem) {
  Schedule schedule{.warps = 8, .family = Family::sm80};
  switch (problem.op) {
  case Operator::pool_tiles:
    schedule.blocks_per_processor = 3; // 85 registers a thread: 8 loads of 16 bytes in flight
    break;
  case Operator::select_tiles:
    schedule.block_q = strip_rows;
    schedule.blocks_per_processor = 2; // 128 registers a thread: the output takes half of them at head_dim 128
    break;
  case Operator::list_mask:
    schedule.blocks_per_processor = 4;
    break;
  case Operator::blend_backward:
    schedule.blocks_per_processor = 2; // 128 registers a thread: 8 loads of 16 bytes in flight
    break;
  case Operator::coarse_backward_query:
  case Operator::coarse_backward_key:
    schedule.warps = 4;
    schedule.block_q = schedule.block_k = 64;
    schedule.stages = 2; // 96 KiB at head_dim 128
    schedule.blocks_per_processor = 2;
    break;
  default:
    schedule.block_k = 32; // 64 leave half as many thread blocks as an H100 has multiprocessors, and more to do in each
    schedule.blocks_per_processor = 4;
    break;
  }
  return {schedule};
}

} // namespace tilewright::schedule::tile_kernels
