#include "schedule/hopper_backward.hpp"

#include "schedule/hopper.hpp"
#include "schedule/reasons.hpp"

namespace tilewright::schedule::hopper_backward {
namespace {

using hopper::consumer_rows;

constexpr std::int32_t element_bytes = 2;
constexpr std::int32_t word_bytes = 4;
constexpr std::int32_t barrier_bytes = 8;

bool of_keys(const Problem& problem) noexcept { return problem.op == Operator::attention_backward_key; }

void add_shape_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  const std::int32_t consumers = schedule.consumers, owned = owned_rows(problem, schedule);
  const char* const own = of_keys(problem) ? "block_k" : "block_q";
  const char* const step = of_keys(problem) ? "block_q" : "block_k";
  reasons.add_if(problem.op == Operator::attention_backward_delta, "the row statistics have a kernel of family sm80");
  reasons.add_if(schedule.warps != 0, "family sm90 counts consumers, not warps");
  reasons.add_if(schedule.softmax != Softmax::online, "the backward pass has no softmax to choose: online");
  reasons.add_if(schedule.cluster != 1 || schedule.overlap != 0, "the backward kernels have cluster=1 and overlap=0");
  reasons.add_if(consumers < 1 || consumers > 3, "consumers={} is not 1 to 3", consumers);
  reasons.add_if(owned != consumer_rows && owned != consumers * consumer_rows,
                 "{}={} is neither {} for each of {} consumers nor {} for all", own, owned, consumer_rows, consumers,
                 consumers * consumer_rows);
  reasons.add_if(step_rows(problem, schedule) != consumer_rows, "{}={} is not {}", step, step_rows(problem, schedule),
                 consumer_rows);
  reasons.add_if(schedule.stages < 1 || schedule.stages > 16, "stages={} is not 1 to 16", schedule.stages);
  reasons.add_if(schedule.blocks_per_processor < 1, "blocks_per_processor is 0");
}

/// Whole blocks in a tile, each 64 rows of them a box of the tensors.
void add_tile_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  if (problem.pattern == PatternKind::dense)
    return;
  reasons.add_if(problem.tile.volume() % schedule.block_q != 0, "block_q={} does not divide the tile of {} tokens",
                 schedule.block_q, problem.tile.volume());
  reasons.add_if(problem.key_tile.volume() % schedule.block_k != 0,
                 "block_k={} does not divide the key tile of {} tokens", schedule.block_k, problem.key_tile.volume());
  for (const Extent3& tile : {problem.tile, problem.key_tile})
    reasons.add_if(!hopper::is_linear(problem) && !hopper::box_of(tile, consumer_rows),
                   "{} rows of a tile of {} fill no box", consumer_rows, to_string(tile));
}

void add_resource_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule) {
  hopper::add_processor_reasons(reasons, schedule, shared_memory_bytes(problem, schedule));
  constexpr std::int32_t scores = 64, everything_else = 16; // scores and their gradients; addresses, counters
  const std::int32_t gradients = of_keys(problem) ? 2 : 1, packed = 16; // of one product at a time
  const std::int32_t least = gradients * problem.head_dim / 2 + scores + packed + everything_else;
  reasons.add_if(schedule.consumer_registers < least, "a consumer needs at least {} registers a thread, it has {}",
                 least, schedule.consumer_registers);
}

} // namespace

std::int32_t owned_rows(const Problem& problem, const Schedule& schedule) noexcept {
  return of_keys(problem) ? schedule.block_k : schedule.block_q;
}

std::int32_t step_rows(const Problem& problem, const Schedule& schedule) noexcept {
  return of_keys(problem) ? schedule.block_q : schedule.block_k;
}

bool is_merged(const Problem& problem, const Schedule& schedule) noexcept {
  return owned_rows(problem, schedule) < schedule.consumers * consumer_rows;
}

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept {
  const std::int32_t consumers = schedule.consumers, stages = schedule.stages;
  const std::int32_t queue = is_merged(problem, schedule) ? consumers * stages : 0; // entries
  const std::int32_t tiles = 2 * (consumers + stages);
  const std::int32_t statistics = of_keys(problem) ? 2 * consumer_rows * stages : 0; // words
  const std::int32_t barriers = 2 * consumers + 2 * stages + queue;
  const std::int32_t note_words = stages * (1 + consumer_rows / 32) + consumers + queue;
  return tiles * consumer_rows * problem.head_dim * element_bytes + barriers * barrier_bytes +
         (statistics + note_words) * word_bytes;
}

std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule) {
  Reasons reasons;
  add_shape_reasons(reasons, problem, schedule);
  if (reasons.empty())
    add_tile_reasons(reasons, problem, schedule);
  if (reasons.empty())
    add_resource_reasons(reasons, problem, schedule);
  return reasons.take();
}

/// Consumers that share one list first; where a tile has 64 tokens, or a number that these do not divide, thread blocks
/// of one consumer, or lists of their own, merged. The key kernel's two gradients take the registers of two consumers a
/// multiprocessor; the query kernel's one leaves room for three.
std::vector<Schedule> schedules(const Problem& problem) {
  std::vector<Schedule> result;
  const auto append = [&](int consumers, int owned, int stages, int registers, int producer, int blocks = 1) {
    Schedule schedule{.stages = static_cast<std::uint8_t>(stages),
                      .blocks_per_processor = static_cast<std::uint8_t>(blocks),
                      .consumers = static_cast<std::uint8_t>(consumers),
                      .consumer_registers = static_cast<std::uint8_t>(registers),
                      .producer_registers = static_cast<std::uint8_t>(producer),
                      .cluster = 1,
                      .family = Family::sm90};
    schedule.block_q = static_cast<std::int16_t>(of_keys(problem) ? consumer_rows : owned);
    schedule.block_k = static_cast<std::int16_t>(of_keys(problem) ? owned : consumer_rows);
    result.push_back(schedule);
  };
  const bool narrow = problem.head_dim == 64; // half the shared memory a stage
  // Measured on an H100: where all lists are the same, consumers at a pace of their own gain a tenth.
  if (!of_keys(problem) && problem.pattern == PatternKind::dense)
    append(3, 64, narrow ? 6 : 4, 160, 32);
  if (!of_keys(problem))
    append(3, 192, narrow ? 6 : 4, 160, 32);
  append(2, 128, narrow ? 8 : 4, 232, 40);
  append(2, 128, narrow ? 8 : 5, 232, 40);
  append(1, 64, narrow ? 5 : 2, 224, 32, 2);
  if (!of_keys(problem))
    append(3, 64, narrow ? 6 : 4, 160, 32);
  append(2, 64, narrow ? 8 : 5, 224, 56);
  append(2, 64, narrow ? 8 : 4, 224, 56);
  append(2, 64, narrow ? 8 : 4, 232, 40);
  return result;
}

} // namespace tilewright::schedule::hopper_backward
