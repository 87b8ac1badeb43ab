#include "schedule/backward.hpp"

#include <algorithm>

namespace tilewright::schedule::backward {
namespace {

constexpr std::int32_t element_bytes = 2;
constexpr std::int32_t warp_size = 32;
constexpr std::int32_t matrix_rows = 16;         // of mma.sync.m16n8k16
constexpr std::int32_t statistics_bytes = 2 * 4; // of a query row: exponent and delta, float32
constexpr std::int32_t bookkeeping_bytes = 768;  // key masks and the parked walk; the kernels check that they fit
constexpr std::int32_t delta_rows = 64;          // of one thread block
constexpr std::int32_t dense_delta_rows = 128;   // a whole number of statistics rows (row_statistics_multiple)

/// Rows that a thread block owns, and rows of one step.
struct Rows {
  std::int32_t own, step;
};

Rows rows_of(const Problem& problem, const Schedule& schedule) noexcept {
  return problem.op == Operator::attention_backward_key ? Rows{schedule.block_k, schedule.block_q}
                                                        : Rows{schedule.block_q, schedule.block_k};
}

void add_delta_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  const std::int32_t rows = problem.pattern == PatternKind::dense ? dense_delta_rows : delta_rows;
  reasons.add_if(schedule.block_q != rows, "block_q={} is not {}", schedule.block_q, rows);
  reasons.add_if(schedule.block_k != dense_key_block, "block_k={} is not {}", schedule.block_k, dense_key_block);
  reasons.add_if(schedule.stages != 0, "the row statistics have no stages");
}

} // namespace

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept {
  if (problem.op == Operator::attention_backward_delta)
    return 0;
  const Rows rows = rows_of(problem, schedule);
  const std::int32_t tensor_rows = 2 * std::max<std::int32_t>(rows.own, schedule.stages * rows.step); // in one place
  const std::int32_t statistics = problem.op == Operator::attention_backward_key ? schedule.stages * rows.step : 0;
  return tensor_rows * problem.head_dim * element_bytes + statistics * statistics_bytes + bookkeeping_bytes;
}

std::int32_t least_registers(const Problem& problem, const Schedule& schedule) noexcept {
  constexpr std::int32_t everything_else = 24; // operand fragments, addresses, counters
  if (problem.op == Operator::attention_backward_delta)
    return everything_else;
  constexpr std::int32_t step_rows = 32; // whose scores and gradients are in registers at a time
  const std::int32_t gradients = problem.op == Operator::attention_backward_key ? 2 : 1;
  const std::int32_t rows = rows_of(problem, schedule).own / schedule.warps;
  return rows * (gradients * problem.head_dim + 2 * step_rows) / warp_size + everything_else;
}

void add_shape_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule, const Architecture& gpu) {
  const std::int32_t warps = schedule.warps, block_q = schedule.block_q, block_k = schedule.block_k;
  reasons.add_if(schedule.softmax != Softmax::online, "the backward pass has no softmax to choose: online");
  reasons.add_if(schedule.consumers != 0 || schedule.consumer_registers != 0 || schedule.producer_registers != 0 ||
                     schedule.cluster != 0 || schedule.overlap != 0,
                 "family sm80 has no consumers, producer, clusters or overlap");
  reasons.add_if(warps != 1 && warps != 2 && warps != 4 && warps != 8, "warps={} is not 1, 2, 4 or 8", warps);
  reasons.add_if(schedule.blocks_per_processor < 1, "blocks_per_processor is 0");
  if (!reasons.empty())
    return;
  const bool dense = problem.pattern == PatternKind::dense;
  if (problem.op == Operator::attention_backward_delta) {
    add_delta_reasons(reasons, problem, schedule);
  } else {
    const bool of_keys = problem.op == Operator::attention_backward_key;
    const Rows rows = rows_of(problem, schedule);
    const char* own = of_keys ? "block_k" : "block_q";
    const char* step = of_keys ? "block_q" : "block_k";
    const std::int32_t groups = rows.own / (warps * matrix_rows); // of 16 rows, of one warp
    // Two gradients of 16 rows a warp fill the registers; one has room for 32.
    reasons.add_if(rows.own % (warps * matrix_rows) != 0 || groups < 1 || groups > (of_keys ? 1 : 2),
                   "{}={} is not {} rows for each of {} warps", own, rows.own, of_keys ? "16" : "16 or 32", warps);
    // Seen with NVRTC 13.0. 16 rows a warp need far fewer registers.
    reasons.add_if(groups > 1 && problem.head_dim == 128, "32 rows a warp spill registers at head_dim=128");
    reasons.add_if(of_keys && problem.head_dim == 128 && rows.step > 32 && (gpu.major == 10 || gpu.major == 11),
                   "{}={} spills registers at head_dim=128 on {}", step, rows.step, to_string(gpu));
    reasons.add_if(rows.step != 32 && rows.step != 64 && rows.step != 128, "{}={} is not 32, 64 or 128", step,
                   rows.step);
    reasons.add_if(schedule.stages < 2 || schedule.stages > 4, "stages={} is not 2 to 4", schedule.stages);
    reasons.add_if(dense && !of_keys && dense_key_block % block_k != 0,
                   "block_k={} does not divide the {} of dense "
                   "problems",
                   block_k, dense_key_block);
  }
  if (dense)
    return;
  reasons.add_if(problem.tile.volume() % block_q != 0, "block_q={} does not divide the tile of {} tokens", block_q,
                 problem.tile.volume());
  reasons.add_if(problem.key_tile.volume() % block_k != 0, "block_k={} does not divide the key tile of {} tokens",
                 block_k, problem.key_tile.volume());
}

std::vector<Schedule> sm80_schedules(Operator op) {
  std::vector<Schedule> schedules;
  const auto append = [&](std::int32_t block_q, std::int32_t block_k, std::int32_t stages, std::int32_t warps,
                          std::int32_t blocks) {
    schedules.push_back({.block_q = static_cast<std::int16_t>(block_q),
                         .block_k = static_cast<std::int16_t>(block_k),
                         .stages = static_cast<std::uint8_t>(stages),
                         .warps = static_cast<std::uint8_t>(warps),
                         .blocks_per_processor = static_cast<std::uint8_t>(blocks),
                         .family = Family::sm80});
  };
  if (op == Operator::attention_backward_delta) {
    for (const std::int32_t rows : {delta_rows, dense_delta_rows})
      append(rows, dense_key_block, 0, 8, 2);
    return schedules;
  }
  // Two thread blocks on a multiprocessor hide each other's barriers; long steps load their operands less often.
  for (const std::int32_t blocks : {2, 1})
    for (const std::int32_t own : {64, 128})
      for (const std::int32_t step : {64, 32})
        for (const std::int32_t stages : {2, 3})
          if (op == Operator::attention_backward_key)
            append(step, own, stages, own / 16, blocks);
          else
            for (const std::int32_t warp_rows : {16, 32})
              append(own, step, stages, own / warp_rows, blocks);
  return schedules;
}

} // namespace tilewright::schedule::backward
