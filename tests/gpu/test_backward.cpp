// The backward kernels on a GPU against the float64 reference. TILEWRIGHT_GPU_PROBLEMS=N sets how many random problems
// each kernel family computes.
#include <doctest/doctest.h>

#include <cstdlib>
#include <set>
#include <string>

#include "device_backward.hpp"
#include "problem_count.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

constexpr double activation_scales[] = {1, 4, 16};

/// From poisoned gradients each time: right, and the same to the last bit in `runs` runs.
std::string complaint_about(RandomBackward& problem, Runtime& runtime,
                            const std::shared_ptr<const cuda::CudaDevice>& device, int runs) {
  DeviceBackward there(problem, device);
  std::vector<std::byte> first;
  std::string complaint;
  for (int run = 0; run < runs; ++run) {
    problem.poison();
    there.upload();
    runtime.attention_backward(there.call(), there.pattern());
    there.download();
    if (run == 0) {
      first = problem.gradient_bytes();
      complaint = problem.complaints();
    } else if (problem.gradient_bytes() != first) {
      return complaint + "\n  two runs differ: " + problem.problem().description();
    }
  }
  return complaint;
}

void check_problems(Family family, RandomLimits limits) {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  limits.max_flops = 4e7; // the reference has five products, and one thread a key/value head
  Runtime runtime(make_cuda_executor(device), {.family = family});
  std::set<std::string> computed; // closed problems: the kernels that ran
  std::uint64_t refused = 0;
  for (std::uint64_t seed = first_seed(); seed < first_seed() + problem_count(300) + refused; ++seed) {
    const double scale = activation_scales[seed % std::size(activation_scales)];
    const Problem forward = RandomProblem(seed, limits).problem();
    try {
      for (const Problem& step : backward_steps(forward))
        static_cast<void>(runtime.spec_of(step));
    } catch (const Error& error) {
      REQUIRE(error.code() == ErrorCode::unsupported);
      if (family == Family::sm90 && computed.empty() && refused > 40) {
        MESSAGE("SKIP: family sm90 has no backward kernel for this GPU");
        return;
      }
      ++refused;
      REQUIRE(refused < 10 * (problem_count(300) + 1)); // a family that refuses all is broken
      continue;
    }
    RandomBackward problem(seed, limits, scale);
    try {
      CHECK(complaint_about(problem, runtime, device, seed % 50 == 0 ? 20 : 2) == "");
    } catch (const Error& error) {
      FAIL_CHECK("seed " << seed << ": " << problem.problem().description() << ": " << std::string(error.what()));
      if (error.code() == ErrorCode::driver_error)
        return; // a context that has met an illegal access computes nothing more
    }
    computed.insert(to_string(forward));
  }
  MESSAGE(to_string(family) << " backward on " << device->description().name << ": " << problem_count(300)
                            << " problems, " << computed.size() << " kinds; the family has none for " << refused
                            << " more");
}

} // namespace

TEST_CASE("random backward problems of the generic family") { check_problems(Family::sm80, {}); }

TEST_CASE("random backward problems of the Hopper family") { check_problems(Family::sm90, {.any_strides = false}); }
