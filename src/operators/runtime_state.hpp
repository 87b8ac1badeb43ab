// What a runtime holds: its device, its options, and the kernels that it has prepared.
#pragma once

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>
#include <utility>

#include "cache/tuned_schedules.hpp"
#include "driver/executor.hpp"
#include "schedule/heuristic.hpp"
#include "schedule/tile_kernels.hpp"
#include "support/hash.hpp"
#include <tilewright/runtime.hpp>

namespace tilewright {

namespace operators {

/// A closed problem, ready to launch.
struct Prepared {
  Spec spec;
  std::shared_ptr<const Kernel> kernel;
};

struct ProblemHash {
  std::size_t operator()(const Problem& problem) const noexcept {
    return support::hash64(std::as_bytes(std::span(&problem, 1)));
  }
};

} // namespace operators

struct Runtime::State {
  State(std::shared_ptr<Executor> given, RuntimeOptions given_options)
      : executor(std::move(given)), options(std::move(given_options)),
        tuned(cache::tuned_schedules(executor->device().architecture, options.cache.folder, options.on_message)) {}

  Spec spec_of(const Problem& problem) const {
    const Architecture& gpu = executor->device().architecture;
    // The options' family and schedule are attention's; the small kernels have one of each.
    if (schedule::tile_kernels::is_one(problem.op))
      return schedule::default_spec(problem, gpu);
    if (is_backward(problem.op)) {
      if (problem.op == Operator::attention_backward_delta) // one kernel for all families
        return schedule::default_spec(problem, gpu);
      const auto& insisted = problem.op == Operator::attention_backward_key ? options.backward_key_schedule
                                                                            : options.backward_query_schedule;
      return insisted ? schedule::insisted_spec(problem, gpu, *insisted)
                      : schedule::default_spec(problem, gpu, options.family);
    }
    return options.schedule ? schedule::insisted_spec(problem, gpu, *options.schedule)
                            : schedule::default_spec(problem, gpu, options.family, &tuned);
  }

  /// By value: a call that meets another thread's insertion keeps its kernel alive.
  operators::Prepared prepared(const Problem& problem, Stream stream) {
    {
      const std::shared_lock lock(mutex);
      if (const auto found = by_problem.find(problem); found != by_problem.end())
        return found->second;
    }
    operators::Prepared made{spec_of(problem), nullptr};
    made.kernel = executor->kernel(made.spec, stream);
    const std::unique_lock lock(mutex);
    return by_problem.try_emplace(problem, std::move(made)).first->second;
  }

  std::shared_ptr<Executor> executor;
  RuntimeOptions options;
  const schedule::TunedTable tuned; // read once: a run never changes what a process launches
  std::shared_mutex mutex;
  std::unordered_map<Problem, operators::Prepared, operators::ProblemHash> by_problem;
};

} // namespace tilewright
