#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "schedule/feasibility.hpp"
#include "schedule/heuristic.hpp"
#include "schedule/hopper.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::schedule;

namespace {

using Texts = std::vector<std::string>;

const Architecture hopper_gpu{9, 0, 0};

Problem problem(const std::string& line) { return parse_problem("attention_forward:" + line); }

const Problem sliding = problem("pattern=sliding_tile,text=0,edges=full");
const Problem lists = problem("pattern=block_list,edges=full");
const std::string three = "block_q=192,block_k=64,stages=4,blocks_per_processor=1,consumers=3,consumer_registers=152,"
                          "producer_registers=56,cluster=1,overlap=1,softmax=fixed";

Texts against(const Problem& of, const std::string& schedule, const Architecture& gpu = hopper_gpu) {
  return reasons_against(of, parse_schedule("family=sm90," + schedule), gpu);
}

/// three with some fields replaced.
std::string with(std::vector<std::pair<std::string, std::string>> fields) {
  std::string text = three;
  for (const auto& [name, value] : fields) {
    const std::size_t at = text.find(name + "=") + name.size() + 1;
    text.replace(at, text.find(',', at) - at, value);
  }
  return text;
}

} // namespace

TEST_CASE("a box is what consecutive rows of a tile fill, wherever they begin at a multiple of their number") {
  using hopper::box_of;
  CHECK(box_of({6, 8, 8}, 64) == Extent3{1, 8, 8});
  CHECK(box_of({6, 8, 8}, 192) == Extent3{3, 8, 8});
  CHECK(box_of({6, 8, 8}, 32) == Extent3{1, 4, 8});
  CHECK(box_of({4, 4, 4}, 64) == Extent3{4, 4, 4});
  CHECK(box_of({4, 4, 4}, 32) == Extent3{2, 4, 4});
  CHECK(box_of({1, 16, 16}, 64) == Extent3{1, 4, 16});
  CHECK(box_of({1, 2, 128}, 64) == Extent3{1, 1, 64});
  CHECK_FALSE(box_of({4, 4, 12}, 64));  // rows 0..63 are one plane of 48 and a part of the next
  CHECK_FALSE(box_of({3, 4, 16}, 128)); // two planes of three
  CHECK_FALSE(box_of({6, 8, 8}, 4));    // begins inside the swizzle's period
}

TEST_CASE("the schedules that were measured have no reason against them") {
  CHECK(against(sliding, three) == Texts{});
  CHECK(against(sliding, with({{"cluster", "2"}, {"stages", "5"}})) == Texts{});
  CHECK(against(lists, with({{"block_q", "64"}, {"overlap", "0"}, {"stages", "5"}})) == Texts{});
  CHECK(shared_memory_bytes(sliding, parse_schedule("family=sm90," + three)) == 180460);
}

TEST_CASE("reasons against schedules of the family say what does not fit") {
  CHECK(against(sliding, three, {10, 0, 0}) ==
        Texts{"family sm90 needs compute capability 9.0 (sm_90a), this is sm_100"});
  CHECK(against(lists, three) == Texts{"block_q=192 does not divide the tile of 64 tokens"});
  CHECK(against(sliding, with({{"consumers", "2"}})) ==
        Texts{"block_q=192 is neither 64 for each of 2 consumers nor 128 for all"});
  CHECK(against(lists, with({{"block_q", "64"}, {"stages", "2"}})) == Texts{"merged lists (block_q=64) need 3 stages"});
  CHECK(against(lists, with({{"block_q", "64"}, {"overlap", "0"}, {"cluster", "2"}})) ==
        Texts{"merged lists (block_q=64) do without clusters"});
  CHECK(against(sliding, with({{"stages", "1"}})) == Texts{"overlap needs 2 stages"});
  CHECK(against(sliding, with({{"stages", "6"}})) ==
        Texts{"it needs 246084 bytes of shared memory, a thread block has 232448",
              "1 thread blocks need 247108 bytes of shared memory, a multiprocessor has 233472"});
  CHECK(against(sliding, with({{"consumer_registers", "160"}})) ==
        Texts{"3 consumers with 160 registers and a producer with 56 need more than 4 with the 128 at launch"});
  CHECK(against(sliding, with({{"block_k", "128"}, {"stages", "2"}})) ==
        Texts{"a consumer needs at least 192 registers a thread, it has 152"});
  // At head_dim 64 three consumers have no register to spare around key blocks of 128.
  const std::string narrow = "pattern=sliding_tile,text=0,head_dim=64,layout=tiled,edges=";
  const std::string long_blocks =
      with({{"block_k", "128"}, {"consumer_registers", "160"}, {"producer_registers", "32"}});
  CHECK(against(problem(narrow + "full"), long_blocks) == Texts{});
  CHECK(against(problem(narrow + "clipped"), long_blocks) ==
        Texts{"zeroing the values of padding rows spills registers: a consumer needs more than 160 a thread"});
  CHECK(against(problem("pattern=dense,edges=full"), with({{"block_k", "128"}})) ==
        Texts{"block_k=128 is not the 64 of dense problems"});
  CHECK(against(problem("pattern=sliding_tile,tile=3x8x8,text=0,edges=full"), with({{"cluster", "2"}})) ==
        Texts{"a cluster of 2 does not divide the tile's 1 query blocks, which share their keys"});
  CHECK(against(problem("pattern=sliding_tile,tile=4x4x12,text=0,edges=full"), three) ==
        Texts{"64 rows of a tile of 4x4x12 fill no box", "64 rows of a tile of 4x4x12 fill no box"});
  CHECK(against(problem("pattern=sliding_tile,tile=4x4x12,text=0,edges=full,layout=tiled"), three) == Texts{});
}

TEST_CASE("defaults on Hopper: three consumers on one list, two, or lists of their own; else the generic family") {
  const auto default_of = [](const std::string& line) {
    return default_spec(problem(line + ",edges=clipped"), hopper_gpu).schedule;
  };
  const auto shape_of = [](const Schedule& s) {
    return std::vector<int>{s.consumers, s.block_q, s.block_k, s.cluster, s.overlap};
  };
  const Schedule tiles = default_of("pattern=sliding_tile,text=1");
  CHECK(tiles == parse_schedule("family=sm90,block_q=192,block_k=64,stages=4,blocks_per_processor=1,consumers=3,"
                                "consumer_registers=160,producer_registers=32,cluster=1,overlap=1,softmax=fixed"));
  CHECK(shape_of(default_of("pattern=dense")) == std::vector<int>{3, 192, 64, 1, 1});
  CHECK(shape_of(default_of("pattern=block_list,tile=2x8x8")) == std::vector<int>{2, 128, 128, 1, 1});
  CHECK(shape_of(default_of("pattern=block_list,tile=4x8x8")) == std::vector<int>{2, 128, 128, 1, 1});
  CHECK(shape_of(default_of("pattern=block_list,tile=4x4x4")) == std::vector<int>{2, 64, 64, 1, 1});
  CHECK(shape_of(default_of("pattern=block_list,tile=4x4x4,sharing=neighbours")) == std::vector<int>{3, 64, 64, 1, 1});
  CHECK(default_of("pattern=sliding_tile,tile=4x4x12,text=0").family == Family::sm80);
  CHECK(default_spec(sliding, hopper_gpu).architecture == Architecture{9, 0, 'a'});
  CHECK(default_spec(sliding, {8, 9, 0}).schedule.family == Family::sm80);
  CHECK_THROWS_WITH_AS(default_spec(sliding, {8, 9, 0}, Family::sm90), doctest::Contains("no schedule computes"),
                       Error);
}

TEST_CASE("a consumer holds as much of its query in registers as it has room for") {
  const auto columns = [](const std::string& line, const std::string& registers) {
    return hopper::query_columns_in_registers(problem(line),
                                              parse_schedule("family=sm90,block_q=192,block_k=64," + registers));
  };
  const std::string wide = "pattern=dense,edges=full", narrow = wide + ",head_dim=64";
  CHECK(columns(wide, "consumer_registers=144") == 0); // output 64, scores 32, probabilities 16, all else 32
  CHECK(columns(wide, "consumer_registers=152") == 32);
  CHECK(columns(wide, "consumer_registers=160") == 64);
  CHECK(columns(wide, "consumer_registers=232") == 128); // all
  CHECK(columns(narrow, "consumer_registers=152") == 64);
}

TEST_CASE("every softmax, cluster and form of work is among the candidates") {
  int feasible = 0, clusters = 0, lazy = 0, alone = 0, merged = 0;
  for (const std::string line : {"pattern=sliding_tile,text=0,edges=full", "pattern=block_list,edges=full"})
    for (const Candidate& candidate : candidates(problem(line), hopper_gpu, Family::sm90)) {
      if (!candidate.refusals.empty())
        continue;
      ++feasible;
      clusters += candidate.schedule.cluster == 2;
      lazy += candidate.schedule.softmax == Softmax::lazy;
      alone += candidate.schedule.consumers == 1;
      merged += hopper::is_merged(candidate.schedule);
    }
  CHECK(feasible > 30);
  CHECK(clusters > 0);
  CHECK(lazy > 0);
  CHECK(alone > 0);
  CHECK(merged > 0);
}
