// The backward kernels' schedules: which are the defaults, what they need, and why others are refused.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "schedule/feasibility.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

namespace {

Schedule default_of(const std::string& problem, const char* architecture, Family family = Family::automatic) {
  return schedule::default_spec(parse_problem(problem), parse_architecture(architecture), family).schedule;
}

/// What the reasons against a schedule say, one behind the other.
std::string reasons(const std::string& problem, const std::string& schedule, const char* architecture) {
  std::string all;
  for (const std::string& reason :
       schedule::reasons_against(parse_problem(problem), parse_schedule(schedule), parse_architecture(architecture)))
    all += reason + "\n";
  return all;
}

const std::string lists = "pattern=block_list,tile=4x4x4,edges=full,head_dim=128";
const std::string sliding = "pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=0,edges=full,head_dim=128";
const std::string dense = "pattern=dense,edges=full,head_dim=128";
const std::string key = "attention_backward_key:", query = "attention_backward_query:";

} // namespace

TEST_CASE("backward on Hopper: thread blocks of one consumer for lists of small tiles, one list for all elsewhere") {
  for (const std::string& op : {key, query}) {
    const Schedule schedule = default_of(op + lists, "sm_90");
    CHECK(schedule.family == Family::sm90);
    CHECK(schedule.consumers == 1);
    CHECK(schedule.blocks_per_processor == 2);
  }
  CHECK(default_of(key + sliding, "sm_90").block_k == 128);
  CHECK(default_of(query + sliding, "sm_90").block_q == 192);
  CHECK(default_of(key + dense, "sm_90").block_k == 128);
  CHECK(default_of(query + dense, "sm_90").consumers == 3);
}

TEST_CASE("backward, generic family: two thread blocks fit a multiprocessor of 100 KiB") {
  for (const std::string& op : {key, query})
    for (const std::string& pattern : {lists, sliding, dense})
      for (const char* architecture : {"sm_80", "sm_86", "sm_90", "sm_120"}) {
        const std::string problem = op + pattern;
        CAPTURE(problem);
        CAPTURE(architecture);
        const Schedule schedule = default_of(problem, architecture, Family::sm80);
        CHECK(schedule.blocks_per_processor == 2);
        CHECK(schedule.warps == 4);
        // Own rows pass through the stages' place: the larger of the two counts.
        const int own = op == key ? schedule.block_k : schedule.block_q;
        const int step = op == key ? schedule.block_q : schedule.block_k;
        const int rows = std::max(own, schedule.stages * step);
        const int shared = schedule::shared_memory_bytes(parse_problem(problem), schedule);
        CHECK(shared >= 2 * rows * 128 * 2);
        CHECK(shared < 2 * rows * 128 * 2 + 2048);
      }
}

TEST_CASE("backward schedules that cannot be are refused with a reason") {
  const std::string sm80 = "family=sm80,softmax=online,blocks_per_processor=1,";
  const std::string sm90 = "family=sm90,softmax=online,cluster=1,overlap=0,";
  const std::vector<std::vector<std::string>> cases{
      {key + lists, sm80 + "block_q=64,block_k=64,stages=2,warps=3", "warps=3 is not 1, 2, 4 or 8"},
      {key + lists, sm80 + "block_q=64,block_k=64,stages=2,warps=2", "block_k=64 is not 16 rows for each of 2 warps"},
      {query + lists, sm80 + "block_q=64,block_k=64,stages=2,warps=2", "32 rows a warp spill registers"},
      {key + lists, sm80 + "block_q=48,block_k=64,stages=2,warps=4", "block_q=48 is not 32, 64 or 128"},
      {key + lists, sm80 + "block_q=64,block_k=64,stages=1,warps=4", "stages=1 is not 2 to 4"},
      {key + lists, sm80 + "block_q=128,block_k=64,stages=2,warps=4", "block_q=128 does not divide the tile of 64"},
      {key + lists, "family=sm80,softmax=lazy,blocks_per_processor=1,block_q=64,block_k=64,stages=2,warps=4",
       "no softmax to choose"},
      {key + lists, "family=sm80,softmax=online,blocks_per_processor=3,block_q=64,block_k=64,stages=2,warps=4",
       "it needs at least"},
      {"attention_backward_delta:" + dense, sm80 + "block_q=64,block_k=64,stages=0,warps=8", "block_q=64 is not 128"},
      {"attention_backward_delta:" + dense, sm90 + "block_q=64,block_k=64,stages=2,consumers=1", "no kernel"},
      {key + lists,
       sm90 + "block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,consumer_registers=208,"
              "producer_registers=40",
       "a consumer needs at least 224 registers"},
      {key + lists,
       sm90 + "block_q=64,block_k=64,stages=3,blocks_per_processor=2,consumers=1,consumer_registers=224,"
              "producer_registers=32",
       "2 thread blocks need"},
      {key + sliding,
       sm90 + "block_q=64,block_k=192,stages=2,blocks_per_processor=1,consumers=2,consumer_registers=232,"
              "producer_registers=40",
       "block_k=192 is neither 64"},
      {key + sliding,
       sm90 + "block_q=128,block_k=128,stages=2,blocks_per_processor=1,consumers=2,consumer_registers=232,"
              "producer_registers=40",
       "block_q=128 is not 64"},
  };
  for (const std::vector<std::string>& entry : cases) {
    const std::string found = reasons(entry[0], entry[1], "sm_90");
    CAPTURE(entry[1]);
    CAPTURE(found);
    CHECK(found.find(entry[2]) != std::string::npos);
  }
}
