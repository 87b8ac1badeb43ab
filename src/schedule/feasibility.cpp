#include "schedule/feasibility.hpp"

#include <algorithm>
#include <iterator>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "schedule/backward.hpp"
#include "schedule/hopper.hpp"
#include "schedule/hopper_backward.hpp"
#include "schedule/reasons.hpp"
#include "schedule/tile_kernels.hpp"
#include <tilewright/error.hpp>

namespace tilewright::schedule {
namespace {

constexpr std::int32_t kibibyte = 1024;
constexpr std::int32_t element_bytes = 2; // bf16 and fp16
constexpr std::int32_t warp_size = 32;
constexpr std::int32_t matrix_rows = 16; // of mma.sync.m16n8k16

// CUDA C++ Programming Guide, technical specifications per compute capability.
constexpr ProcessorLimits processors[] = {
    {80, 163 * kibibyte, 164 * kibibyte},  {86, 99 * kibibyte, 100 * kibibyte},   {87, 163 * kibibyte, 164 * kibibyte},
    {88, 163 * kibibyte, 164 * kibibyte},  {89, 99 * kibibyte, 100 * kibibyte},   {90, 227 * kibibyte, 228 * kibibyte},
    {100, 227 * kibibyte, 228 * kibibyte}, {103, 227 * kibibyte, 228 * kibibyte}, {110, 227 * kibibyte, 228 * kibibyte},
    {120, 99 * kibibyte, 100 * kibibyte},  {121, 99 * kibibyte, 100 * kibibyte},
};

/// What the sm80 kernel's own structure asks for; the figures below divide by these.
void add_shape_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  const std::int32_t warps = schedule.warps, block_q = schedule.block_q, block_k = schedule.block_k;
  reasons.add_if(schedule.softmax == Softmax::fixed, "family sm80 has softmax=online and softmax=lazy only");
  reasons.add_if(schedule.consumers != 0 || schedule.consumer_registers != 0 || schedule.producer_registers != 0 ||
                     schedule.cluster != 0 || schedule.overlap != 0,
                 "family sm80 has no consumers, producer, clusters or overlap");
  reasons.add_if(warps != 1 && warps != 2 && warps != 4 && warps != 8, "warps={} is not 1, 2, 4 or 8", warps);
  reasons.add_if(block_q != warps * matrix_rows && block_q != warps * 2 * matrix_rows,
                 "block_q={} is not {} or {} rows for each of {} warps", block_q, matrix_rows, 2 * matrix_rows, warps);
  reasons.add_if(block_k != 32, "block_k={} is not 32", block_k);
  reasons.add_if(schedule.stages < 2 || schedule.stages > 4, "stages={} is not 2 to 4", schedule.stages);
  reasons.add_if(schedule.blocks_per_processor < 1, "blocks_per_processor is 0");
  if (!reasons.empty())
    return;
  reasons.add_if(problem.pattern != PatternKind::dense && problem.tile.volume() % block_q != 0,
                 "block_q={} does not divide the tile of {} tokens", block_q, problem.tile.volume());
}

void add_resource_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule,
                          const ProcessorLimits& limits) {
  const std::int32_t shared = shared_memory_bytes(problem, schedule), blocks = schedule.blocks_per_processor;
  reasons.add_if(shared > limits.shared_per_block, "it needs {} bytes of shared memory, a thread block has {}", shared,
                 limits.shared_per_block);
  reasons.add_if((shared + shared_reserved) * blocks > limits.shared_in_all,
                 "{} thread blocks need {} bytes of shared memory, a multiprocessor has {}", blocks,
                 (shared + shared_reserved) * blocks, limits.shared_in_all);
  const std::int32_t threads = schedule.warps * warp_size, registers = least_registers(problem, schedule);
  const std::int32_t available = std::min(registers_per_thread_limit, registers_in_all / (threads * blocks));
  reasons.add_if(registers > available,
                 "it needs at least {} registers a thread, {} thread blocks of {} threads leave {}", registers, blocks,
                 threads, available);
}

} // namespace

std::optional<ProcessorLimits> limits_of(const Architecture& architecture) noexcept {
  for (const ProcessorLimits& limits : processors)
    if (limits.architecture == architecture.number())
      return limits;
  return std::nullopt;
}

bool family_available(Family family, const Problem& problem) noexcept {
  return family == Family::sm80 || (family == Family::sm90 && problem.op != Operator::attention_backward_delta);
}

Architecture target_of(Family family, const Architecture& gpu) noexcept {
  return {gpu.major, gpu.minor, family == Family::sm90 ? 'a' : char{0}};
}

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) {
  if (tile_kernels::is_one(problem.op))
    return tile_kernels::shared_memory_bytes(problem, schedule);
  if (schedule.family == Family::sm90 && is_backward(problem.op))
    return hopper_backward::shared_memory_bytes(problem, schedule);
  if (schedule.family == Family::sm90)
    return hopper::shared_memory_bytes(problem, schedule);
  if (schedule.family != Family::sm80)
    throw Error(ErrorCode::unsupported, fmt::format("the schedule's family is {}", to_string(schedule.family)),
                "allowed: sm80, sm90", "choose a family that has a kernel");
  if (is_backward(problem.op))
    return backward::shared_memory_bytes(problem, schedule);
  const std::int32_t rows = schedule.block_q + 2 * schedule.stages * schedule.block_k; // queries, keys and values
  // The list of key blocks, and what each row that the threads copy together adds to a block's first row, which text
  // has twice; the kernel checks that they fit.
  constexpr std::int32_t list_bytes = 784, row_bytes = 16, copy_bytes = 16;
  const std::int32_t copied_rows = schedule.warps * warp_size * copy_bytes / (problem.head_dim * element_bytes);
  return rows * problem.head_dim * element_bytes + list_bytes +
         (problem.text == Text::present ? 2 : 1) * copied_rows * row_bytes;
}

std::int32_t least_registers(const Problem& problem, const Schedule& schedule) noexcept {
  if (is_backward(problem.op))
    return backward::least_registers(problem, schedule);
  constexpr std::int32_t everything_else = 24; // operand fragments, row maxima and sums, addresses, counters
  const std::int32_t rows = schedule.block_q / schedule.warps;
  constexpr std::int32_t step_keys = 32; // keys whose scores are in registers at a time
  return rows * (problem.head_dim + step_keys) / warp_size + everything_else;
}

std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule, const Architecture& gpu) {
  Reasons reasons;
  const auto limits = limits_of(gpu);
  if (!limits) {
    std::vector<int> known;
    std::transform(std::begin(processors), std::end(processors), std::back_inserter(known),
                   [](const ProcessorLimits& processor) { return processor.architecture; });
    reasons.add_if(true, "{} is not among the architectures sm_{}", to_string(gpu), fmt::join(known, ", sm_"));
    return reasons.take();
  }
  if (tile_kernels::is_one(problem.op))
    return tile_kernels::reasons_against(problem, schedule, *limits);
  if (!family_available(schedule.family, problem)) {
    reasons.add_if(true, "family {} has no kernel for this problem", to_string(schedule.family));
    return reasons.take();
  }
  if (schedule.family == Family::sm90) {
    if (gpu.number() == 90 && is_backward(problem.op))
      return hopper_backward::reasons_against(problem, schedule);
    if (gpu.number() == 90)
      return hopper::reasons_against(problem, schedule);
    reasons.add_if(true, "family sm90 needs compute capability 9.0 (sm_90a), this is {}", to_string(gpu));
    return reasons.take();
  }
  if (is_backward(problem.op))
    backward::add_shape_reasons(reasons, problem, schedule, gpu);
  else
    add_shape_reasons(reasons, problem, schedule);
  if (reasons.empty())
    add_resource_reasons(reasons, problem, schedule, *limits);
  return reasons.take();
}

} // namespace tilewright::schedule
