#include <doctest/doctest.h>

#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "schedule/feasibility.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::schedule;

namespace {

const Problem sliding = parse_problem("attention_forward:pattern=sliding_tile,text=0,edges=full");
const Problem small_tiles = parse_problem("attention_forward:pattern=block_list,edges=full");
const Problem big_tiles = parse_problem("attention_forward:pattern=block_list,edges=full,tile=4x8x8");
const Problem dense64 = parse_problem("attention_forward:pattern=dense,edges=full,head_dim=64");
const Problem tiled_text = parse_problem("attention_forward:pattern=sliding_tile,text=1,edges=full,layout=tiled");
const Architecture ampere{8, 0, 0}, ada{8, 9, 0}, hopper{9, 0, 0}, blackwell{12, 0, 0};

/// The reasons against a schedule of the sm80 family, one behind the other.
std::string against(const Problem& problem, const std::string& schedule, const Architecture& gpu) {
  return fmt::format("{}", fmt::join(reasons_against(problem, parse_schedule("family=sm80," + schedule), gpu), "; "));
}

} // namespace

TEST_CASE("shared memory holds the queries, the ring of keys and values, and the bookkeeping") {
  const auto bytes = [](const Problem& problem, const char* schedule) {
    return shared_memory_bytes(problem, parse_schedule(schedule));
  };
  // The list of key blocks takes 784 bytes; each row that the threads copy together 16, twice with text.
  CHECK(bytes(sliding, "family=sm80,block_q=128,block_k=32,stages=2,warps=4") == (128 + 4 * 32) * 256 + 784 + 8 * 16);
  CHECK(bytes(sliding, "family=sm80,block_q=128,block_k=32,stages=4,warps=8") == (128 + 8 * 32) * 256 + 784 + 16 * 16);
  CHECK(bytes(tiled_text, "family=sm80,block_q=64,block_k=32,stages=2,warps=4") ==
        (64 + 4 * 32) * 256 + 784 + 2 * 8 * 16);
  CHECK(bytes(dense64, "family=sm80,block_q=64,block_k=32,stages=3,warps=2") == (64 + 6 * 32) * 128 + 784 + 8 * 16);
  CHECK_THROWS_AS(bytes(sliding, "block_q=192,block_k=64,stages=2"), Error);
}

TEST_CASE("every architecture from sm_80 up has limits, whatever its suffix") {
  for (const char* name : {"sm_80", "sm_86", "sm_87", "sm_88", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_103", "sm_110",
                           "sm_120", "sm_121", "sm_120a", "sm_100f"}) {
    CAPTURE(name);
    const auto limits = limits_of(parse_architecture(name));
    REQUIRE(limits);
    CHECK(limits->shared_in_all == limits->shared_per_block + shared_reserved);
  }
  CHECK(limits_of(ada)->shared_per_block == 99 * 1024);
  CHECK(limits_of(hopper)->shared_per_block == 227 * 1024);
  CHECK_FALSE(limits_of({7, 5, 0}));
  CHECK_FALSE(limits_of({9, 1, 0}));
}

TEST_CASE("a schedule that fits has no reason against it") {
  CHECK(against(sliding, "block_q=128,block_k=32,stages=4,warps=4,blocks_per_processor=2", hopper) == "");
  CHECK(against(sliding, "block_q=128,block_k=32,stages=2,warps=4,blocks_per_processor=2", ampere) == "");
  CHECK(against(sliding, "block_q=128,block_k=32,stages=3,warps=4,blocks_per_processor=1", ada) == "");
  CHECK(against(dense64, "block_q=256,block_k=32,stages=2,warps=8,blocks_per_processor=1,softmax=lazy", blackwell) ==
        "");
}

TEST_CASE("reasons say what is needed and what there is") {
  CHECK(against(sliding, "block_q=128,block_k=32,stages=4,warps=4,blocks_per_processor=2", ampere) ==
        "2 thread blocks need 200480 bytes of shared memory, a multiprocessor has 167936");
  CHECK(against(big_tiles, "block_q=256,block_k=32,stages=4,warps=8,blocks_per_processor=1", blackwell) ==
        "it needs 132112 bytes of shared memory, a thread block has 101376; "
        "1 thread blocks need 133136 bytes of shared memory, a multiprocessor has 102400");
  CHECK(against(sliding, "block_q=128,block_k=32,stages=2,warps=4,blocks_per_processor=3", hopper) ==
        "it needs at least 184 registers a thread, 3 thread blocks of 128 threads leave 170");
  CHECK(against(small_tiles, "block_q=128,block_k=32,stages=2,warps=8,blocks_per_processor=1", hopper) ==
        "block_q=128 does not divide the tile of 64 tokens");
  CHECK(against(sliding, "block_q=128,block_k=32,stages=2,warps=4,blocks_per_processor=1", {7, 5, 0}) ==
        "sm_75 is not among the architectures sm_80, sm_86, sm_87, sm_88, sm_89, sm_90, sm_100, sm_103, sm_110, "
        "sm_120, sm_121");
}

TEST_CASE("shapes that the kernel is not written for are refused before any figure is computed") {
  const std::string rest = ",blocks_per_processor=1";
  CHECK(against(sliding, "block_q=96,block_k=32,stages=2,warps=3" + rest, hopper) == "warps=3 is not 1, 2, 4 or 8");
  CHECK(against(sliding, "block_q=128,block_k=32,stages=2,warps=2" + rest, hopper) ==
        "block_q=128 is not 16 or 32 rows for each of 2 warps");
  CHECK(against(sliding, "block_q=64,block_k=48,stages=2,warps=4" + rest, hopper) == "block_k=48 is not 32");
  CHECK(against(sliding, "block_q=64,block_k=32,stages=1,warps=4" + rest, hopper) == "stages=1 is not 2 to 4");
  CHECK(against(sliding, "block_q=64,block_k=32,stages=5,warps=4" + rest, hopper) == "stages=5 is not 2 to 4");
  CHECK(against(sliding, "block_q=64,block_k=32,stages=2,warps=4,softmax=fixed" + rest, hopper) ==
        "family sm80 has softmax=online and softmax=lazy only");
  CHECK(against(sliding, "block_q=64,block_k=32,stages=2,warps=4,cluster=2" + rest, hopper) ==
        "family sm80 has no consumers, producer, clusters or overlap");
  CHECK(against(sliding, "block_q=64,block_k=32,stages=2,warps=4", hopper) == "blocks_per_processor is 0");
  CHECK(against(sliding, "block_q=0,block_k=0,stages=0,warps=0", hopper) ==
        "warps=0 is not 1, 2, 4 or 8; block_k=0 is not 32; stages=0 is not 2 to 4; blocks_per_processor is 0");
}

TEST_CASE("a family compiles for its own form of the architecture") {
  CHECK(target_of(Family::sm80, {9, 0, 'a'}) == Architecture{9, 0, 0});
  CHECK(target_of(Family::sm90, {9, 0, 0}) == Architecture{9, 0, 'a'});
  CHECK(target_of(Family::sm80, {12, 1, 0}) == Architecture{12, 1, 0});
}
