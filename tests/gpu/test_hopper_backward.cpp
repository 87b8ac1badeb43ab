// The sm90 family's backward kernels on a GPU: random problems against float64, the same bits in 20 runs.
#include <doctest/doctest.h>

#include <cstdlib>
#include <deque>
#include <string>
#include <vector>

#include "device_problem.hpp"
#include "problem_count.hpp"
#include "schedule/heuristic.hpp"
#include "support_backward_problem.hpp"

using namespace tilewright;
using testing::first_seed;
using testing::problem_count;

TEST_CASE("backward kernels of sm90 on random problems") {
  const auto device = testing::gpu_or_skip();
  if (device == nullptr || device->description().architecture.number() != 90)
    return;
  const auto executor = make_cuda_executor(0, {}, {});
  constexpr int repeats = 20, every = 10; // one problem in so many is repeated

  testing::RandomLimits limits;
  limits.max_tokens = 1500;
  limits.max_flops = 6e7;
  limits.any_strides = false;
  for (std::uint64_t seed = first_seed(); seed < first_seed() + problem_count(60); ++seed) {
    limits.query_scale_max = seed % 3 == 0 ? 16 : 4;
    testing::BackwardProblem problem(seed, limits);
    for (const Operator op : {Operator::attention_backward_key, Operator::attention_backward_query}) {
      const Spec spec = schedule::default_spec(problem.problem(op), executor->device().architecture, Family::sm90);
      std::vector<std::byte> first;
      for (int run = 0; run < (seed % every == 0 ? repeats : 1); ++run) {
        struct Copy {
          void* host;
          std::size_t count;
          cuda::DeviceMemory memory;
        };
        std::deque<Copy> copies;
        testing::Placement placement;
        placement.put = [&](void* bytes, std::size_t count) -> void* {
          Copy& copy = copies.emplace_back(Copy{bytes, count, cuda::DeviceMemory(device, count)});
          copy.memory.copy_from_host({static_cast<const std::byte*>(bytes), count});
          return copy.memory.data();
        };
        placement.collect = [&] {
          for (Copy& copy : copies)
            copy.memory.copy_to_host({static_cast<std::byte*>(copy.host), copy.count});
        };
        std::vector<std::byte> bytes;
        const std::string wrong = problem.check(*executor, spec, bytes, placement);
        CHECK_MESSAGE(wrong == "", "seed " << seed << ": " << problem.description() << "\n" << to_string(spec));
        if (run == 0)
          first = bytes;
        CHECK(bytes == first);
      }
    }
  }
}
