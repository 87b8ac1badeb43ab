// Merged lists with overlap, where two consumers are due in the same place of the ring: a bubble for the one must not
// move the other's block a whole ring away (seen on a GPU, as a kernel that never ended).
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <vector>

#include "support_tensor.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using testing::HostTensor;

namespace {

constexpr std::int64_t block = 64, head_dim = 64, query_blocks = 3, key_blocks = 8, capacity = 4;

/// Three query blocks, one for each consumer. With three stages a consumer's next block must come within two places.
struct DueTogether {
  HostTensor q{DataType::bf16, {1, query_blocks*block, 1, head_dim}},
      k{DataType::bf16, {1, key_blocks*block, 1, head_dim}}, v{DataType::bf16, {1, key_blocks*block, 1, head_dim}},
      out{DataType::bf16, {1, query_blocks*block, 1, head_dim}}, counts{DataType::int32, {1, 1, query_blocks}},
      indices{DataType::int32, {1, 1, query_blocks, capacity}};

  explicit DueTogether(const std::vector<std::vector<int>>& lists) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (HostTensor* tensor : {&q, &k, &v})
      tensor->fill([&](auto...) { return normal(random); });
    counts.fill(
        [&](auto, auto, auto tile, auto) { return static_cast<double>(lists[static_cast<std::size_t>(tile)].size()); });
    indices.fill([&](auto, auto, auto tile, auto entry) {
      const auto& list = lists[static_cast<std::size_t>(tile)];
      const auto at = static_cast<std::size_t>(entry);
      return static_cast<double>(at < list.size() ? list[at] : key_blocks - 1);
    });
  }

  AttentionForward call() { return {.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view()}; }
  BlockList pattern() {
    return BlockList::linear(query_blocks * block, key_blocks * block, block, block, counts.view(), indices.view());
  }
};

/// bf16 inputs and probabilities, as everywhere: rounding alone gives about 2.5e-3.
constexpr double tolerance = 6e-3;

double relative_error(DueTogether& problem) {
  const reference::Result expected = reference::attention_forward(problem.call(), problem.pattern());
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < expected.out.size(); ++i) { // one batch and one head: the same order
    std::uint16_t bits;
    std::memcpy(&bits, static_cast<const std::byte*>(problem.out.view().data) + 2 * i, sizeof(bits));
    const std::uint32_t wide = std::uint32_t{bits} << 16;
    float actual;
    std::memcpy(&actual, &wide, sizeof(actual));
    error += (actual - expected.out[i]) * (actual - expected.out[i]);
    norm += expected.out[i] * expected.out[i];
  }
  return std::sqrt(error / norm); // NaN, for poison, is not below the tolerance
}

} // namespace

TEST_CASE("merged lists with overlap: consumers that are due in the same place") {
  RuntimeOptions options;
  options.schedule =
      parse_schedule("family=sm90,block_q=64,block_k=64,cluster=1,overlap=1,blocks_per_processor=1,consumers=3,"
                     "consumer_registers=152,producer_registers=56,stages=3,softmax=fixed");
  const std::vector<std::vector<std::vector<int>>> cases = {
      {{0, 2}, {0, 3}, {1, 2, 3}},    // block 2: due for the first two, but only the first's own
      {{0, 7}, {0, 6}, {1, 2, 3, 4}}, // one bubble after the other
      {{0, 7}, {}, {0, 7}},           // nobody in between
  };
  for (const auto& lists : cases)
    for (const std::uint64_t seed : {1, 2, 3, 4}) {
      DueTogether problem(lists);
      problem.out.poison_all();
      Runtime runtime(make_emulator({.seed = seed, .architecture = {9, 0, 'a'}}), options);
      runtime.attention_forward(problem.call(), problem.pattern());
      CHECK(problem.out.unwritten() == 0);
      CHECK(relative_error(problem) <= tolerance);
    }
}
