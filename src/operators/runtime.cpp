#include <tilewright/runtime.hpp>

#include "driver/cuda_executor.hpp"
#include "operators/call_shape.hpp"
#include "operators/launch.hpp"
#include "operators/list_check.hpp"
#include "operators/runtime_state.hpp"

namespace tilewright {

namespace operators {

void check_pointers(const Executor& executor, const AttentionForward& call, const Pattern& pattern) {
  executor.check_pointer(call.q.data, "q");
  executor.check_pointer(call.k.data, "k");
  executor.check_pointer(call.v.data, "v");
  executor.check_pointer(call.out.data, "out");
  const auto check_optional = [&](const std::optional<TensorView>& tensor, const char* name) {
    if (tensor)
      executor.check_pointer(tensor->data, name);
  };
  check_optional(call.lse, "lse");
  check_optional(call.coarse, "coarse");
  check_optional(call.gate, "gate");
  check_optional(call.fine, "fine");
  if (const auto* lists = std::get_if<BlockList>(&pattern)) {
    executor.check_pointer(lists->counts.data, "counts");
    executor.check_pointer(lists->indices.data, "indices");
    check_optional(lists->query_sizes, "query_sizes");
    check_optional(lists->key_sizes, "key_sizes");
  }
}

} // namespace operators

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
  operators::check_pointers(*state_->executor, call, pattern);
  if (const auto* lists = std::get_if<BlockList>(&pattern); lists != nullptr && lists->validate_lists)
    operators::check_lists(*state_->executor, *lists, shape, stream);
  const operators::Prepared prepared = state_->prepared(operators::problem_of_checked(call, pattern, shape), stream);
  operators::launch_attention(*state_->executor, *prepared.kernel, {call, pattern, shape, prepared.spec}, stream);
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

CacheStatistics Runtime::cache_statistics() const { return state_->executor->cache_statistics(); }

Executor& Runtime::executor() noexcept { return *state_->executor; }

} // namespace tilewright
