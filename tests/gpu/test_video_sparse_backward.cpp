// Video sparse attention's gradient on a GPU, behind its forward pass, against the float64 reference.
#include <doctest/doctest.h>

#include <string>

#include "device_problem.hpp"
#include "device_tensors.hpp"
#include "graph_api.hpp"
#include "problem_count.hpp"
#include "support_video_sparse_backward.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// Forward, then backward from poisoned gradients `runs` times: right, and the same to the last bit.
std::string complaint_about(RandomVideoSparseBackward& problem, Runtime& runtime,
                            const std::shared_ptr<const cuda::CudaDevice>& device, int runs) {
  std::string differences;
  const std::string complaint = problem.check(
      runtime,
      [&](const VideoSparseAttention&) {
        DeviceTensors there(problem.tensors(), device);
        there.upload();
        runtime.video_sparse_attention(problem.problem().relocated([&](void* host) { return there.at(host); }));
        there.download();
      },
      [&](const VideoSparseAttentionBackward&) {
        DeviceTensors there(problem.tensors(), device);
        const auto call = problem.relocated([&](void* host) { return there.at(host); });
        std::vector<std::byte> first;
        for (int run = 0; run < runs; ++run) {
          problem.poison();
          there.upload();
          runtime.video_sparse_attention_backward(call);
          there.download();
          if (run == 0)
            first = problem.gradient_bytes();
          else if (problem.gradient_bytes() != first)
            differences = "two runs differ: " + problem.problem().description();
        }
      });
  return complaint + differences;
}

VideoSparseLimits limits_of_gpu() {
  VideoSparseLimits limits;
  limits.max_tiles = 40;
  limits.max_tokens = 3000;
  limits.max_flops = 6e7; // the reference has nine products, and one thread a key/value head
  return limits;
}

void check_problems(Family family, std::uint64_t from_seed) {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device), {.family = family});
  for (std::uint64_t seed = from_seed; seed < from_seed + problem_count(300); ++seed) {
    RandomVideoSparseBackward problem(seed, limits_of_gpu());
    try {
      CHECK(complaint_about(problem, runtime, device, seed % 10 == 0 ? 20 : 2) == "");
    } catch (const Error& error) {
      FAIL_CHECK("seed " << seed << ": " << problem.problem().description() << ": " << std::string(error.what()));
      if (error.code() == ErrorCode::driver_error)
        return; // a context that has met an illegal access computes nothing more
    }
  }
  MESSAGE(to_string(family) << " gradients on " << device->description().name << ": " << problem_count(300)
                            << " problems");
}

} // namespace

TEST_CASE("video sparse attention's gradient: random problems of the generic family") {
  check_problems(Family::sm80, first_seed());
}

TEST_CASE("video sparse attention's gradient: random problems of the default family") {
  check_problems(Family::automatic, 20000 + first_seed());
}

TEST_CASE("a prepared video sparse gradient is captured in a graph") {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device));
  RandomVideoSparseBackward problem(3, limits_of_gpu());
  runtime.prepare(Runtime::problem_of(problem.problem().call()));
  runtime.prepare_backward(Runtime::problem_of(problem.call()));
  const cuda::ContextGuard guard(*device);
  const GraphApi api(device->api());
  // The whole step in one graph: the gradient reads what the forward pass left in the same workspace.
  std::unique_ptr<DeviceTensors> there;
  CHECK(problem.check(
            runtime,
            [&](const VideoSparseAttention&) {
              DeviceTensors forward(problem.tensors(), device);
              forward.upload();
              runtime.video_sparse_attention(problem.problem().relocated([&](void* host) { return forward.at(host); }));
              forward.download();
            },
            [&](const VideoSparseAttentionBackward&) {
              there = std::make_unique<DeviceTensors>(problem.tensors(), device);
              there->upload();
              const auto call = problem.relocated([&](void* host) { return there->at(host); });
              void *stream = nullptr, *graph = nullptr, *executable = nullptr;
              api.call("cuStreamCreate", &stream, 1U);
              api.call("cuStreamBeginCapture_v2", stream, 1);
              runtime.video_sparse_attention(call.forward, stream);
              runtime.video_sparse_attention_backward(call, stream);
              api.call("cuStreamEndCapture", stream, &graph);
              api.call("cuGraphInstantiateWithFlags", &executable, graph, 0ULL);
              for (int replay = 0; replay < 2; ++replay)
                api.call("cuGraphLaunch", executable, stream);
              api.call("cuStreamSynchronize", stream);
              there->download();
              api.call("cuGraphExecDestroy", executable);
              api.call("cuGraphDestroy", graph);
              api.call("cuStreamDestroy_v2", stream);
            }) == "");
}
