// Graph capture: a prepared problem is captured and replayed, an unprepared one is refused.
#include <doctest/doctest.h>

#include <string>

#include "device_backward.hpp"
#include "device_problem.hpp"
#include "graph_api.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

constexpr unsigned non_blocking_stream = 1; // CU_STREAM_NON_BLOCKING
constexpr int capture_thread_local = 1;     // CU_STREAM_CAPTURE_MODE_THREAD_LOCAL

} // namespace

TEST_CASE("a prepared call is captured in a graph and replayed") {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device));
  const GraphApi api(device->api());
  const cuda::ContextGuard guard(*device);
  void* stream = nullptr;
  api.call("cuStreamCreate", &stream, non_blocking_stream);
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    RandomProblem problem(seed, {.any_strides = false});
    CAPTURE(problem.description());
    runtime.prepare(problem.problem());
    const std::string complaint = problem.check([&](const AttentionForward&, const Pattern&) {
      DeviceProblem there(problem, device);
      there.upload();
      void *graph = nullptr, *executable = nullptr;
      api.call("cuStreamBeginCapture_v2", stream, capture_thread_local);
      runtime.attention_forward(there.call(), there.pattern(), stream);
      api.call("cuStreamEndCapture", stream, &graph);
      CHECK(there.bytes() == [&] { // capturing has run nothing
        DeviceProblem untouched(problem, device);
        untouched.upload();
        return untouched.bytes();
      }());
      api.call("cuGraphInstantiateWithFlags", &executable, graph, 0ULL);
      for (int replay = 0; replay < 2; ++replay)
        api.call("cuGraphLaunch", executable, stream);
      api.call("cuStreamSynchronize", stream);
      there.download();
      api.call("cuGraphExecDestroy", executable);
      api.call("cuGraphDestroy", graph);
    });
    CHECK(complaint == "");
  }
  api.call("cuStreamDestroy_v2", stream);
}

TEST_CASE("a prepared backward call is captured in a graph and replayed") {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device));
  const GraphApi api(device->api());
  const cuda::ContextGuard guard(*device);
  void* stream = nullptr;
  api.call("cuStreamCreate", &stream, non_blocking_stream);
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const std::uint64_t seed : {1U, 2U}) {
      RandomLimits limits{.max_flops = 4e7, .any_strides = false};
      limits.pattern = pattern;
      RandomBackward problem(seed, limits);
      CAPTURE(problem.problem().description());
      runtime.prepare_backward(problem.problem().problem());
      DeviceBackward there(problem, device);
      problem.poison();
      there.upload();
      void *graph = nullptr, *executable = nullptr;
      api.call("cuStreamBeginCapture_v2", stream, capture_thread_local);
      runtime.attention_backward(there.call(), there.pattern(), stream);
      api.call("cuStreamEndCapture", stream, &graph);
      there.download();
      CHECK(problem.complaints() != ""); // capturing has run nothing: the gradients are still poison
      api.call("cuGraphInstantiateWithFlags", &executable, graph, 0ULL);
      for (int replay = 0; replay < 2; ++replay)
        api.call("cuGraphLaunch", executable, stream);
      api.call("cuStreamSynchronize", stream);
      there.download();
      CHECK(problem.complaints() == "");
      api.call("cuGraphExecDestroy", executable);
      api.call("cuGraphDestroy", graph);
    }
  api.call("cuStreamDestroy_v2", stream);
}

TEST_CASE("a call that is not prepared is refused while its stream is captured") {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device));
  const GraphApi api(device->api());
  const cuda::ContextGuard guard(*device);
  RandomProblem problem(0, {.any_strides = false});
  DeviceProblem there(problem, device);
  void *stream = nullptr, *graph = nullptr;
  api.call("cuStreamCreate", &stream, non_blocking_stream);
  api.call("cuStreamBeginCapture_v2", stream, capture_thread_local);
  try {
    runtime.attention_forward(there.call(), there.pattern(), stream);
    FAIL_CHECK("not refused");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::capture_in_progress);
  }
  api.call("cuStreamEndCapture", stream, &graph); // the capture has survived
  api.call("cuGraphDestroy", graph);
  api.call("cuStreamDestroy_v2", stream);
}
