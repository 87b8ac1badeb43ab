// The kernels on a GPU against the float64 reference. Without a GPU every case says SKIP; run.sh tells the two apart.
// TILEWRIGHT_GPU_PROBLEMS=N sets how many random problems each kernel family computes.
#include <doctest/doctest.h>

#include <cstdlib>
#include <set>
#include <string>

#include "device_problem.hpp"
#include "problem_count.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// Twice, from poisoned outputs each time: right, and the same to the last bit.
std::string complaint_about(RandomProblem& problem, Runtime& runtime,
                            const std::shared_ptr<const cuda::CudaDevice>& device) {
  bool same = true;
  const std::string complaint = problem.check([&](const AttentionForward&, const Pattern&) {
    DeviceProblem there(problem, device);
    there.upload();
    runtime.attention_forward(there.call(), there.pattern());
    const auto first = there.bytes();
    there.upload();
    runtime.attention_forward(there.call(), there.pattern());
    same = there.bytes() == first;
    there.download();
  });
  return complaint + (same ? "" : "\n  two runs differ: " + problem.description());
}

void check_problems(Family family, const RandomLimits& limits) {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  const Architecture gpu = device->description().architecture;
  if (family == Family::sm90 && gpu.number() != 90) {
    MESSAGE("SKIP: family sm90 needs sm_90, this is " << to_string(gpu));
    return;
  }
  Runtime runtime(make_cuda_executor(device), {.family = family});
  std::set<std::string> computed; // closed problems: the kernels that ran
  std::uint64_t refused = 0;
  for (std::uint64_t seed = first_seed(); computed.empty() || seed < first_seed() + problem_count(400) + refused;
       ++seed) {
    RandomProblem problem(seed, limits);
    try {
      static_cast<void>(runtime.spec_of(problem.problem()));
    } catch (const Error& error) {
      REQUIRE(error.code() == ErrorCode::unsupported);
      ++refused;
      REQUIRE(refused < 10 * (problem_count(400) + 1)); // a family that refuses all is broken
      continue;
    }
    try {
      CHECK(complaint_about(problem, runtime, device) == "");
    } catch (const Error& error) {
      FAIL_CHECK("seed " << seed << ": " << problem.description() << ": " << std::string(error.what()));
      if (error.code() == ErrorCode::driver_error)
        return; // a context that has met an illegal access computes nothing more
    }
    computed.insert(to_string(problem.problem()));
  }
  MESSAGE(to_string(family) << " on " << device->description().name << ": " << problem_count(400) << " problems, "
                            << computed.size() << " kernels; the family has none for " << refused << " more");
}

} // namespace

TEST_CASE("random problems, generic family") { check_problems(Family::sm80, {}); }

TEST_CASE("random problems, Hopper family") { check_problems(Family::sm90, {.any_strides = false}); }
