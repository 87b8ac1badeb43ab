// Merged lists with overlap, where two consumers are due in the same place of the ring: a bubble for the one must not
// move the other's block a whole ring away (seen on a GPU, as a kernel that never ended).
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "support_tensor.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using testing::HostTensor;

namespace {

constexpr std::int64_t block = 64, head_dim = 64, query_blocks = 3, capacity = 4;

/// Three query blocks, one for each consumer. With three stages a consumer's next block must come within two places.
struct Lists {
  Lists(const std::vector<std::vector<int>>& lists, std::int64_t key_blocks_)
      : key_blocks(key_blocks_), k(DataType::bf16, {1, key_blocks * block, 1, head_dim}),
        v(DataType::bf16, {1, key_blocks * block, 1, head_dim}) {
    std::mt19937 random(7);
    std::normal_distribution<double> normal;
    for (HostTensor* tensor : {&q, &k, &v})
      tensor->fill([&](auto...) { return normal(random); });
    const auto list_of = [&](auto tile) -> const auto& { return lists[static_cast<std::size_t>(tile)]; };
    counts.fill([&](auto, auto, auto tile, auto) { return static_cast<double>(list_of(tile).size()); });
    indices.fill([&](auto, auto, auto tile, auto entry) {
      const auto at = static_cast<std::size_t>(entry);
      return at < list_of(tile).size() ? list_of(tile)[at] : static_cast<double>(key_blocks - 1);
    });
  }

  AttentionForward call() { return {.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view()}; }
  BlockList pattern() {
    return BlockList::linear(query_blocks * block, static_cast<std::int32_t>(key_blocks * block), block, block,
                             counts.view(), indices.view());
  }

  std::int64_t key_blocks;
  HostTensor q{DataType::bf16, {1, query_blocks*block, 1, head_dim}}, k, v;
  HostTensor out{DataType::bf16, {1, query_blocks* block, 1, head_dim}};
  HostTensor counts{DataType::int32, {1, 1, query_blocks}}, indices{DataType::int32, {1, 1, query_blocks, capacity}};
};

/// bf16 inputs and probabilities, as everywhere: rounding alone gives about 2.5e-3.
constexpr double tolerance = 6e-3;

double relative_error(Lists& problem) {
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

void check(const std::vector<std::vector<int>>& lists, std::int64_t key_blocks) {
  for (const std::string overlap : {"0", "1"}) {
    RuntimeOptions options;
    options.schedule = parse_schedule("family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,consumers=3,"
                                      "consumer_registers=152,producer_registers=56,stages=3,softmax=fixed,overlap=" +
                                      overlap);
    for (const std::uint64_t seed : {1, 2, 3, 4}) {
      Lists problem(lists, key_blocks);
      problem.out.poison_all();
      Runtime runtime(make_emulator({.seed = seed, .architecture = {9, 0, 'a'}}), options);
      runtime.attention_forward(problem.call(), problem.pattern());
      CHECK(problem.out.unwritten() == 0);
      CHECK(relative_error(problem) <= tolerance);
    }
  }
}

} // namespace

TEST_CASE("merged lists: consumers that are due in the same place of the ring") {
  check({{0, 2}, {0, 3}, {1, 2, 3}}, 4);    // block 2: due for the first two, but only the first's own
  check({{0, 7}, {0, 6}, {1, 2, 3, 4}}, 8); // bubbles by turns would never end
  check({{0, 7}, {}, {0, 7}}, 8);           // nobody in between
}

TEST_CASE("merged lists that reach over several windows of 1024 tiles") {
  check({{0, 1030}, {1025, 1026, 1099}, {3}}, 1100);
  check({{2, 1023}, {1024}, {}}, 1030);
}
