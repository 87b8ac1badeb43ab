#include <tilewright/runtime.hpp>

#include <mutex>
#include <shared_mutex>
#include <unordered_map>
#include <vector>

#include <fmt/format.h>

#include "driver/cuda_executor.hpp"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/list_check.hpp"
#include "schedule/heuristic.hpp"
#include "support/hash.hpp"

namespace tilewright {
namespace {

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

void check_pointers(const Executor& executor, const AttentionForward& call, const Pattern& pattern) {
  executor.check_pointer(call.q.data, "q");
  executor.check_pointer(call.k.data, "k");
  executor.check_pointer(call.v.data, "v");
  executor.check_pointer(call.out.data, "out");
  if (call.lse)
    executor.check_pointer(call.lse->data, "lse");
  if (const auto* lists = std::get_if<BlockList>(&pattern)) {
    executor.check_pointer(lists->counts.data, "counts");
    executor.check_pointer(lists->indices.data, "indices");
    if (lists->query_sizes)
      executor.check_pointer(lists->query_sizes->data, "query_sizes");
    if (lists->key_sizes)
      executor.check_pointer(lists->key_sizes->data, "key_sizes");
  }
}

} // namespace

struct Runtime::State {
  State(std::shared_ptr<Executor> given, RuntimeOptions given_options)
      : executor(std::move(given)), options(std::move(given_options)) {}

  Spec spec_of(const Problem& problem) const {
    const Architecture& gpu = executor->device().architecture;
    return options.schedule ? schedule::insisted_spec(problem, gpu, *options.schedule)
                            : schedule::default_spec(problem, gpu, options.family);
  }

  /// By value: a call that meets another thread's insertion keeps its kernel alive.
  Prepared prepared(const Problem& problem, Stream stream) {
    {
      const std::shared_lock lock(mutex);
      if (const auto found = by_problem.find(problem); found != by_problem.end())
        return found->second;
    }
    Prepared made{spec_of(problem), nullptr};
    made.kernel = executor->kernel(made.spec, stream);
    const std::unique_lock lock(mutex);
    return by_problem.try_emplace(problem, std::move(made)).first->second;
  }

  std::shared_ptr<Executor> executor;
  RuntimeOptions options;
  std::shared_mutex mutex;
  std::unordered_map<Problem, Prepared, ProblemHash> by_problem;
};

Runtime::Runtime(RuntimeOptions options) {
  auto executor = make_cuda_executor(options.device, options.cache, options.on_message);
  state_ = std::make_unique<State>(std::move(executor), std::move(options));
}

Runtime::Runtime(std::shared_ptr<Executor> executor, RuntimeOptions options)
    : state_(std::make_unique<State>(std::move(executor), std::move(options))) {}

Runtime::~Runtime() = default;
Runtime::Runtime(Runtime&&) noexcept = default;
Runtime& Runtime::operator=(Runtime&&) noexcept = default;

void Runtime::attention_forward(const AttentionForward& call, const Pattern& pattern, Stream stream) {
  const operators::CallShape shape = operators::check_call(call, pattern);
  check_pointers(*state_->executor, call, pattern);
  if (const auto* lists = std::get_if<BlockList>(&pattern); lists != nullptr && lists->validate_lists)
    operators::check_lists(*state_->executor, *lists, shape, stream);
  const Prepared prepared = state_->prepared(operators::problem_of_checked(call, pattern, shape), stream);
  const operators::LaunchRequest request{call, pattern, shape, prepared.spec};
  if (prepared.spec.schedule.family == Family::sm90) {
    operators::launch_sm90(*state_->executor, *prepared.kernel, request, stream);
  } else {
    operators::launch_sm80(*state_->executor, *prepared.kernel, request, stream);
  }
}

void Runtime::prepare(const Problem& problem) {
  validate(problem);
  for (const Problem& variant : closed_variants(problem))
    state_->prepared(variant, nullptr);
}

Problem Runtime::problem_of(const AttentionForward& call, const Pattern& pattern) {
  return operators::problem_of_checked(call, pattern, operators::check_call(call, pattern));
}

Spec Runtime::spec_of(const Problem& problem) const { return state_->spec_of(problem); }

Executor& Runtime::executor() noexcept { return *state_->executor; }

} // namespace tilewright
