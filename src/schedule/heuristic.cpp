#include "schedule/heuristic.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "schedule/backward.hpp"
#include "schedule/feasibility.hpp"
#include "schedule/hopper.hpp"
#include "schedule/hopper_backward.hpp"
#include "schedule/tile_kernels.hpp"
#include <tilewright/error.hpp>

namespace tilewright::schedule {
namespace {

void require_closed(const Problem& problem) {
  if (problem.op == Operator::video_sparse_attention)
    throw Error(ErrorCode::invalid_argument, fmt::format("'{}' is several kernels", to_string(problem)),
                "a problem of one kernel has a schedule", "choose one of its closed_variants()");
  if (problem.text == Text::open || problem.edges == Edges::open)
    throw Error(ErrorCode::invalid_argument, fmt::format("problem '{}' leaves text or edges open", to_string(problem)),
                "a problem with every field decided is allowed", "choose one of its closed_variants()");
}

/// Big blocks of queries first (they read each key fewer times), 32 rows a warp (each key fragment feeds two matrix
/// products), then as many thread blocks on a multiprocessor as there are registers for. Two stages hide the memory's
/// latency: three gained 0.5 % on an H100, four lost 3 %.
std::vector<Schedule> sm80_schedules() {
  constexpr std::int16_t query_blocks[] = {128, 64};
  constexpr std::int16_t warp_rows[] = {32, 16};
  constexpr std::int16_t block_k = 32; // more scores than that are too many registers beside the output
  constexpr std::uint8_t stage_counts[] = {2, 3, 4};
  constexpr int resident_rows = 256; // query rows on a multiprocessor whose accumulators fill its registers at d=128
  std::vector<Schedule> schedules;
  for (const std::int16_t block_q : query_blocks)
    for (const std::int16_t rows : warp_rows)
      for (int blocks = resident_rows / block_q; blocks > 0; --blocks)
        for (const std::uint8_t stages : stage_counts)
          schedules.push_back({.block_q = block_q,
                               .block_k = block_k,
                               .stages = stages,
                               .warps = static_cast<std::uint8_t>(block_q / rows),
                               .blocks_per_processor = static_cast<std::uint8_t>(blocks),
                               .family = Family::sm80,
                               .softmax = Softmax::lazy});
  return schedules;
}

Spec spec_of(const Problem& problem, const Schedule& schedule, const Architecture& gpu) {
  return {.problem = problem, .schedule = schedule, .architecture = target_of(schedule.family, gpu)};
}

[[noreturn]] void refuse_all(const Problem& problem, const Architecture& gpu, const std::vector<std::string>& reasons) {
  throw Error(ErrorCode::unsupported,
              fmt::format("no schedule computes '{}' on {}", to_string(problem), to_string(gpu)),
              fmt::format("refused: {}", fmt::join(reasons, " | ")),
              "use an architecture, family or schedule that these reasons leave open");
}

} // namespace

std::vector<Candidate> candidates(const Problem& problem, const Architecture& gpu, Family family) {
  std::vector<Candidate> result;
  const auto append = [&](const std::vector<Schedule>& schedules) {
    for (const Schedule& schedule : schedules)
      result.push_back({schedule, reasons_against(problem, schedule, gpu)});
  };
  if (tile_kernels::is_one(problem.op)) {
    append(tile_kernels::schedules(problem));
    return result;
  }
  if (is_backward(problem.op)) {
    const bool delta = problem.op == Operator::attention_backward_delta;
    if (!delta && (family == Family::sm90 || (family == Family::automatic && gpu.number() == 90)))
      append(hopper_backward::schedules(problem));
    if (delta || family == Family::automatic || family == Family::sm80) // all families share the statistics' kernel
      append(backward::sm80_schedules(problem.op));
    return result;
  }
  if (family == Family::sm90 || (family == Family::automatic && gpu.number() == 90))
    append(hopper::schedules(problem));
  if (family == Family::automatic || family == Family::sm80)
    append(sm80_schedules());
  return result;
}

Spec default_spec(const Problem& problem, const Architecture& gpu, Family family, const TunedTable* tuned) {
  require_closed(problem);
  const auto tuned_schedule = tuned ? tuned->find(problem) : std::nullopt;
  if (tuned_schedule && (family == Family::automatic || family == tuned_schedule->family))
    return insisted_spec(problem, gpu, *tuned_schedule);
  std::vector<std::string> reasons;
  for (const auto& [schedule, refusals] : candidates(problem, gpu, family)) {
    if (refusals.empty())
      return spec_of(problem, schedule, gpu);
    reasons.push_back(fmt::format("{}: {}", to_string(schedule), fmt::join(refusals, ", ")));
  }
  if (!limits_of(gpu) || reasons.empty()) // one reason for all
    reasons = reasons_against(problem, {.family = family == Family::automatic ? Family::sm80 : family}, gpu);
  refuse_all(problem, gpu, reasons);
}

Spec insisted_spec(const Problem& problem, const Architecture& gpu, const Schedule& schedule) {
  require_closed(problem);
  if (const auto reasons = reasons_against(problem, schedule, gpu); !reasons.empty())
    throw Error(
        ErrorCode::unsupported,
        fmt::format("schedule '{}' cannot compute '{}' on {}", to_string(schedule), to_string(problem), to_string(gpu)),
        fmt::format("refused: {}", fmt::join(reasons, "; ")), "give no schedule to run with the default");
  return spec_of(problem, schedule, gpu);
}

} // namespace tilewright::schedule
