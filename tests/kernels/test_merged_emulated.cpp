// Merged lists with overlap, where two consumers are due in the same place of the ring: a bubble for the one must not
// move the other's block a whole ring away (seen on a GPU, as a kernel that never ended).
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support_listed_blocks.hpp"
#include <tilewright/emulator.hpp>

using namespace tilewright;

namespace {

/// With three stages a consumer's next block must come within two places.
void check(const std::vector<std::vector<int>>& lists, std::int64_t key_blocks) {
  testing::ListedBlocks problem(lists, key_blocks);
  for (const std::string overlap : {"0", "1"}) {
    RuntimeOptions options;
    options.schedule = parse_schedule("family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,consumers=3,"
                                      "consumer_registers=152,producer_registers=56,stages=3,softmax=fixed,overlap=" +
                                      overlap);
    for (const std::uint64_t seed : {1U, 2U, 3U, 4U}) {
      Runtime runtime(make_emulator({.seed = seed, .architecture = {9, 0, 'a'}}), options);
      CHECK(problem.check(runtime) == "");
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
