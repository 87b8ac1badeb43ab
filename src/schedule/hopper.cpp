#include "schedule/hopper.hpp"

#include <algorithm>

#include "schedule/feasibility.hpp"
#include "schedule/reasons.hpp"

namespace tilewright::schedule::hopper {
namespace {

constexpr std::int32_t warpgroup_size = 128, warp_lanes = 32;
constexpr std::int32_t element_bytes = 2;
constexpr std::int32_t word_bytes = 4;
constexpr std::int32_t barrier_bytes = 8;
constexpr std::int32_t swizzle_rows = 8; // the period of the 128-byte swizzle: boxes begin at multiples of it
constexpr std::int32_t register_granularity = 8;
constexpr std::int32_t accumulators_at_launch = 96; // ptxas wants that many before setmaxnreg, for wgmma's operands

/// Registers that a consumer's thread cannot do without.
std::int32_t least_registers(const Problem& problem, const Schedule& schedule) noexcept {
  constexpr std::int32_t everything_else = 32; // maxima, sums, addresses, counters
  return problem.head_dim / 2 + schedule.block_k / 2 + schedule.block_k / 4 +
         everything_else; // output, scores, probabilities
}

/// Whether consumers zero the values of padding rows (values_may_be_padding in
/// templates/kernels/sm90/shared_memory.cuh).
bool clears_values(const Problem& problem) noexcept {
  return problem.layout == Layout::tiled && problem.pattern != PatternKind::dense && problem.edges != Edges::full;
}

/// Registers of a thread when the kernel starts: what __launch_bounds__ leaves.
std::int32_t launch_registers(const Schedule& schedule) noexcept {
  const std::int32_t threads = (1 + schedule.consumers) * warpgroup_size * schedule.blocks_per_processor;
  return registers_in_all / threads / register_granularity * register_granularity;
}

void add_shape_reasons(Reasons& reasons, const Schedule& schedule) {
  const std::int32_t consumers = schedule.consumers, block_q = schedule.block_q;
  reasons.add_if(schedule.warps != 0, "family sm90 counts consumers, not warps");
  reasons.add_if(consumers < 1 || consumers > 3, "consumers={} is not 1 to 3", consumers);
  reasons.add_if(block_q != consumer_rows && block_q != consumers * consumer_rows,
                 "block_q={} is neither {} for each of {} consumers nor {} for all", block_q, consumer_rows, consumers,
                 consumers * consumer_rows);
  reasons.add_if(schedule.block_k != 64 && schedule.block_k != 128, "block_k={} is not 64 or 128", schedule.block_k);
  reasons.add_if(schedule.stages < 1 || schedule.stages > 16, "stages={} is not 1 to 16", schedule.stages);
  reasons.add_if(schedule.cluster != 1 && schedule.cluster != 2, "cluster={} is not 1 or 2", schedule.cluster);
  reasons.add_if(schedule.blocks_per_processor < 1, "blocks_per_processor is 0");
  reasons.add_if(schedule.overlap != 0 && schedule.stages < 2, "overlap needs 2 stages");
  reasons.add_if(is_merged(schedule) && schedule.stages < 3, "merged lists (block_q={}) need 3 stages", block_q);
  reasons.add_if(is_merged(schedule) && schedule.cluster != 1, "merged lists (block_q={}) do without clusters",
                 block_q);
  reasons.add_if(schedule.cluster != 1 && schedule.blocks_per_processor > 1, "a cluster has its multiprocessors alone");
}

/// What the problem asks of the shape: whole blocks in a tile, each of them a box of the tensors.
void add_tile_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  const std::int32_t block_q = schedule.block_q, block_k = schedule.block_k, cluster = schedule.cluster;
  if (problem.pattern == PatternKind::dense) {
    reasons.add_if(block_k != dense_key_block, "block_k={} is not the {} of dense problems", block_k, dense_key_block);
    return;
  }
  reasons.add_if(problem.tile.volume() % block_q != 0, "block_q={} does not divide the tile of {} tokens", block_q,
                 problem.tile.volume());
  reasons.add_if(problem.key_tile.volume() % block_k != 0, "block_k={} does not divide the key tile of {} tokens",
                 block_k, problem.key_tile.volume());
  if (!reasons.empty())
    return;
  reasons.add_if(problem.tile.volume() / block_q % cluster != 0,
                 "a cluster of {} does not divide the tile's {} query blocks, which share their keys", cluster,
                 problem.tile.volume() / block_q);
  const auto require_box = [&](const Extent3& tile, std::int32_t rows) {
    reasons.add_if(!is_linear(problem) && !box_of(tile, rows), "{} rows of a tile of {} fill no box", rows,
                   to_string(tile));
  };
  require_box(problem.tile, consumer_rows);
  require_box(problem.key_tile, block_k / cluster);
}

void add_resource_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  add_processor_reasons(reasons, schedule, shared_memory_bytes(problem, schedule));
  const std::int32_t at_launch = launch_registers(schedule);
  reasons.add_if(at_launch < accumulators_at_launch, "{} registers at launch are fewer than the {} that wgmma needs",
                 at_launch, accumulators_at_launch);
  const std::int32_t least = least_registers(problem, schedule);
  reasons.add_if(schedule.consumer_registers < least, "a consumer needs at least {} registers a thread, it has {}",
                 least, schedule.consumer_registers);
  if (clears_values(problem))
    reasons.add_if(schedule.consumer_registers == least,
                   "zeroing the values of padding rows spills registers: a consumer needs more than {} a thread",
                   least);
}

} // namespace

void add_processor_reasons(Reasons& reasons, const Schedule& schedule, std::int32_t shared) {
  const auto limits = *limits_of({9, 0, 'a'});
  const std::int32_t blocks = schedule.blocks_per_processor;
  reasons.add_if(shared > limits.shared_per_block, "it needs {} bytes of shared memory, a thread block has {}", shared,
                 limits.shared_per_block);
  reasons.add_if((shared + shared_reserved) * blocks > limits.shared_in_all,
                 "{} thread blocks need {} bytes of shared memory, a multiprocessor has {}", blocks,
                 (shared + shared_reserved) * blocks, limits.shared_in_all);

  const std::int32_t consumer = schedule.consumer_registers, producer = schedule.producer_registers;
  const std::int32_t at_launch = launch_registers(schedule);
  reasons.add_if(consumer % register_granularity != 0 || producer % register_granularity != 0,
                 "registers {} and {} are no multiples of {}", consumer, producer, register_granularity);
  reasons.add_if(producer < 24 || producer > at_launch || consumer < at_launch || consumer > 240,
                 "registers {} and {} are not on the two sides of the {} at launch, from 24 to 240", consumer, producer,
                 at_launch);
  reasons.add_if(schedule.consumers * consumer + producer > (1 + schedule.consumers) * at_launch,
                 "{} consumers with {} registers and a producer with {} need more than {} with the {} at launch",
                 schedule.consumers, consumer, producer, 1 + schedule.consumers, at_launch);
}

bool is_linear(const Problem& problem) noexcept {
  return problem.layout == Layout::tiled || problem.pattern == PatternKind::dense;
}

std::optional<Extent3> box_of(const Extent3& tile, std::int32_t rows) noexcept {
  const std::int32_t plane = tile.h * tile.w;
  if (rows % swizzle_rows != 0)
    return std::nullopt;
  if (rows % plane == 0 && tile.t % (rows / plane) == 0)
    return Extent3{rows / plane, tile.h, tile.w};
  if (rows % tile.w == 0 && tile.h % (rows / tile.w) == 0)
    return Extent3{1, rows / tile.w, tile.w};
  if (tile.w % rows == 0)
    return Extent3{1, 1, rows};
  return std::nullopt;
}

bool is_merged(const Schedule& schedule) noexcept { return schedule.block_q < schedule.consumers * consumer_rows; }

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept {
  const std::int32_t consumers = schedule.consumers, stages = schedule.stages, block_k = schedule.block_k;
  const std::int32_t queue = is_merged(schedule) ? consumers * stages : 0; // entries
  const std::int32_t rows = consumers * consumer_rows + 2 * stages * block_k;
  const std::int32_t batches = is_merged(schedule) ? 2 : 0, batch_words = warp_lanes + 1;
  const std::int32_t window_words = is_merged(schedule) ? consumers * warp_lanes : 0;
  const std::int32_t barriers = 2 * consumers + 4 * stages + queue + 2 * batches;
  const std::int32_t note_words = stages * (1 + block_k / 32) + consumers + queue + batches * batch_words +
                                  window_words; // stages: flags, and a bit a key
  return rows * problem.head_dim * element_bytes + barriers * barrier_bytes + note_words * word_bytes;
}

std::int32_t query_columns_in_registers(const Problem& problem, const Schedule& schedule) noexcept {
  constexpr std::int32_t step_columns = 16, step_registers = 4; // one matrix instruction's share
  const std::int32_t steps = (schedule.consumer_registers - least_registers(problem, schedule)) / step_registers;
  // Two steps at least: the compiler's fences take registers by eights.
  return steps < 2 ? 0 : std::min(steps / 2 * 2 * step_columns, problem.head_dim);
}

std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule) {
  Reasons reasons;
  add_shape_reasons(reasons, schedule);
  if (reasons.empty())
    add_tile_reasons(reasons, problem, schedule);
  if (reasons.empty())
    add_resource_reasons(reasons, problem, schedule);
  return reasons.take();
}

/// Three consumers on one list of keys are the fastest where they fit the tile, then two. Where a tile has 64 tokens,
/// or a number that these do not divide, consumers with lists of their own, merged: two of them, or three where
/// neighbours share most of their lists (where they share nothing, three find too few stages). Last, small thread
/// blocks that share nothing but feed the multiprocessor twice. Measured on an H100 (benchmarks/results): key blocks of
/// 64 for three consumers, registers 160 + 32, as half of the query is then held in registers, of 128 where heads have
/// 64 columns (12 % faster); the fixed reference maximum.
std::vector<Schedule> schedules(const Problem& problem) {
  const bool narrow = problem.head_dim == 64; // half the shared memory a stage
  const auto stages = [&](int wide_stages, int narrow_stages) {
    return static_cast<std::uint8_t>(narrow ? narrow_stages : wide_stages);
  };
  constexpr Softmax softmaxes[] = {Softmax::fixed, Softmax::lazy, Softmax::online};
  const Schedule three{.block_q = 192,
                       .block_k = 64,
                       .stages = stages(4, 6),
                       .blocks_per_processor = 1,
                       .consumers = 3,
                       .consumer_registers = 160,
                       .producer_registers = 32,
                       .cluster = 1,
                       .overlap = 1,
                       .family = Family::sm90};
  std::vector<Schedule> result;
  const auto append = [&](Schedule schedule, std::int16_t block_k, std::uint8_t stage_count, std::uint8_t cluster) {
    schedule.block_k = block_k;
    schedule.stages = stage_count;
    schedule.cluster = cluster;
    for (const Softmax softmax : softmaxes) {
      schedule.softmax = softmax;
      result.push_back(schedule);
    }
  };
  if (narrow)
    append(three, 128, 4, 1);
  append(three, 64, stages(4, 6), 1);
  append(three, 64, stages(5, 8), 2);
  append(three, 64, 3, 1);
  if (!narrow)
    append(three, 128, 4, 1);

  Schedule two = three;
  two.block_q = 128;
  two.consumers = 2;
  two.consumer_registers = 232;
  two.producer_registers = 40;
  append(two, 128, stages(3, 5), 1);
  append(two, 128, stages(3, 5), 2);
  append(two, 64, stages(6, 8), 1);
  append(two, 64, stages(6, 8), 2);

  Schedule merged_pair = two;
  merged_pair.block_q = 64;
  Schedule merged = three;
  merged.block_q = 64;
  if (problem.sharing == Sharing::neighbours) {
    append(merged, 64, stages(5, 8), 1);
    append(merged_pair, 64, stages(6, 8), 1);
  } else {
    append(merged_pair, 64, stages(6, 8), 1);
    append(merged, 64, stages(5, 8), 1);
  }

  Schedule alone = three;
  alone.block_q = 64;
  alone.consumers = 1;
  alone.blocks_per_processor = 2;
  alone.consumer_registers = 208;
  alone.producer_registers = 40;
  append(alone, 64, stages(3, 6), 1);
  append(alone, 64, 2, 1);
  append(alone, 128, stages(1, 2), 1);
  append(merged, 64, 4, 1);
  append(merged_pair, 128, stages(3, 5), 1);

  const std::size_t with_overlap = result.size();
  for (std::size_t i = 0; i < with_overlap; ++i)
    if (Schedule without = result[i]; without.overlap != 0) {
      without.overlap = 0;
      result.push_back(without);
    }
  return result;
}

} // namespace tilewright::schedule::hopper
