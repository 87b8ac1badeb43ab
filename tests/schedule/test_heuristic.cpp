#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include <fmt/format.h>
#include <unistd.h>

#include "schedule/feasibility.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::schedule;

namespace {

/// The sm80 family's default, in short.
std::string default_of(const std::string& problem, const char* gpu) {
  const Spec spec = default_spec(parse_problem("attention_forward:" + problem), parse_architecture(gpu), Family::sm80);
  const Schedule& s = spec.schedule;
  CHECK(s.family == Family::sm80);
  CHECK(spec.architecture == target_of(Family::sm80, parse_architecture(gpu)));
  return fmt::format("{} rows, {} warps, keys {}, stages {}, resident {}", s.block_q, s.warps, s.block_k, s.stages,
                     s.blocks_per_processor);
}

const std::string sta = "pattern=sliding_tile,text=1,edges=clipped,";
const std::string list = "pattern=block_list,edges=full,";

} // namespace

TEST_CASE("defaults: 128 query rows in 4 warps, two thread blocks on a multiprocessor where they fit") {
  CHECK(default_of(sta + "tile=6x8x8", "sm_90") == "128 rows, 4 warps, keys 32, stages 2, resident 2");
  CHECK(default_of(sta + "tile=6x8x8", "sm_80") == "128 rows, 4 warps, keys 32, stages 2, resident 2");
  CHECK(default_of(sta + "tile=6x8x8", "sm_89") == "128 rows, 4 warps, keys 32, stages 2, resident 1");
  CHECK(default_of(sta + "tile=6x8x8,head_dim=64", "sm_120") == "128 rows, 4 warps, keys 32, stages 2, resident 2");
  CHECK(default_of(list + "tile=1x1x128", "sm_103") == "128 rows, 4 warps, keys 32, stages 2, resident 2");
  CHECK(default_of(sta + "layout=tiled", "sm_90") == "128 rows, 4 warps, keys 32, stages 2, resident 2");
  CHECK(default_of("pattern=dense,edges=full", "sm_90a") == "128 rows, 4 warps, keys 32, stages 2, resident 2");
}

TEST_CASE("defaults: 64 query rows in 2 warps where the tile holds no multiple of 128") {
  CHECK(default_of(list + "tile=4x4x4", "sm_90") == "64 rows, 2 warps, keys 32, stages 2, resident 4");
  CHECK(default_of(list + "tile=4x4x4,head_dim=64", "sm_90") == "64 rows, 2 warps, keys 32, stages 2, resident 4");
  CHECK(default_of(list + "tile=4x4x4", "sm_80") == "64 rows, 2 warps, keys 32, stages 2, resident 3");
  CHECK(default_of(list + "tile=4x4x4", "sm_86") == "64 rows, 2 warps, keys 32, stages 2, resident 2");
  CHECK(default_of(sta + "tile=3x8x8", "sm_87") == "64 rows, 2 warps, keys 32, stages 2, resident 3");
}

TEST_CASE("every closed problem has a default on every architecture") {
  for (const char* gpu :
       {"sm_80", "sm_86", "sm_87", "sm_88", "sm_89", "sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"})
    for (const std::string pattern :
         {"pattern=dense", "pattern=sliding_tile,tile=4x4x4", "pattern=sliding_tile,tile=6x8x8",
          "pattern=sliding_tile,tile=5x8x8", "pattern=block_list,tile=4x4x4,key_tile=2x8x8",
          "pattern=block_list,tile=4x16x16,key_tile=1x1x64"})
      for (const std::string rest : {"", ",head_dim=64", ",layout=tiled"})
        for (const Problem& problem : closed_variants(parse_problem("attention_forward:" + pattern + rest))) {
          CAPTURE(to_string(problem));
          const Spec spec = default_spec(problem, parse_architecture(gpu));
          CHECK(spec.problem == problem);
          CHECK(reasons_against(problem, spec.schedule, spec.architecture).empty());
        }
}

TEST_CASE("candidates come in a fixed order, each once, the default first of those that can run") {
  const Problem problem = parse_problem("attention_forward:" + sta + "window=3x3x3");
  const Architecture gpu{8, 0, 0};
  const auto first = candidates(problem, gpu), second = candidates(problem, gpu);
  REQUIRE(first.size() == second.size());
  std::size_t feasible = 0;
  for (std::size_t i = 0; i < first.size(); ++i) {
    CHECK(first[i].schedule == second[i].schedule);
    CHECK(first[i].refusals == reasons_against(problem, first[i].schedule, gpu));
    for (std::size_t j = 0; j < i; ++j)
      CHECK_FALSE(first[i].schedule == first[j].schedule);
    if (first[i].refusals.empty() && feasible++ == 0)
      CHECK(first[i].schedule == default_spec(problem, gpu).schedule);
  }
  CHECK(feasible > 10);
  CHECK(feasible < first.size());
}

TEST_CASE("an open problem has no spec") {
  CHECK_THROWS_WITH_AS(default_spec(parse_problem("attention_forward:pattern=dense"), {8, 0, 0}),
                       doctest::Contains("leaves text or edges open"), Error);
  CHECK_THROWS_WITH_AS(insisted_spec(parse_problem("attention_forward:pattern=sliding_tile,edges=full"), {8, 0, 0}, {}),
                       doctest::Contains("leaves text or edges open"), Error);
}

TEST_CASE("where nothing can run, the error lists why") {
  const Problem problem = parse_problem("attention_forward:pattern=dense,edges=full");
  const auto allowed_of = [](auto call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::unsupported);
      return error.allowed();
    }
    return "no error";
  };
  CHECK(allowed_of([&] {
          default_spec(problem, {7, 5, 0});
        }).starts_with("refused: sm_75 is not among the architectures sm_80"));
  CHECK(allowed_of([&] {
          insisted_spec(problem, {8, 9, 0},
                        parse_schedule("family=sm80,block_q=256,block_k=32,stages=4,warps=8,blocks_per_processor=1"));
        }) == "refused: it needs 132112 bytes of shared memory, a thread block has 101376; "
              "1 thread blocks need 133136 bytes of shared memory, a multiprocessor has 102400");
  CHECK(allowed_of([&] {
          insisted_spec(problem, {8, 9, 0}, {});
        }) == "refused: family automatic has no kernel for this problem");
}

TEST_CASE("a tuned schedule is used for its problem, and for closed variants that have no line of their own") {
  const std::string open =
      "attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,dtype=bf16,head_dim=128,layout=raster";
  const std::string closed = "attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=1,edges=full,dtype="
                             "bf16,head_dim=128,layout=raster";
  const std::string eight = "family=sm80,block_q=128,block_k=32,stages=2,warps=8,blocks_per_processor=1";
  const std::string narrow = "family=sm80,block_q=64,block_k=32,stages=2,warps=2,blocks_per_processor=2";
  const TunedTable table = TunedTable::parse(
      fmt::format(
          R"({{"architecture": "sm_80", "measured": {{"gpu": "A100"}}, "schedules": {{"{}": "{}", "{}": "{}"}}}})",
          open, eight, closed, narrow),
      "test");
  CHECK(table.size() == 2);
  const auto schedule_of = [&](const char* line, Family family = Family::automatic) {
    return default_spec(parse_problem(line), {8, 0, 0}, family, &table).schedule;
  };
  CHECK(schedule_of(closed.c_str()) == parse_schedule(narrow));
  CHECK(schedule_of("attention_forward:pattern=sliding_tile,window=3x3x3,text=0,edges=full") == parse_schedule(eight));
  CHECK(schedule_of("attention_forward:pattern=sliding_tile,window=3x3x3,text=0,edges=full", Family::sm80) ==
        parse_schedule(eight));
  const Problem other = parse_problem("attention_forward:pattern=sliding_tile,window=3x3x5,text=0,edges=full");
  CHECK_FALSE(table.find(other));
  CHECK(default_spec(other, {8, 0, 0}, Family::automatic, &table) == default_spec(other, {8, 0, 0}));
}

TEST_CASE("a tuned table that is broken says where") {
  const auto problem_of = [](const std::string& json) -> std::string {
    try {
      TunedTable::parse(json, "sm_80.json");
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::cache_corrupt);
      CHECK(error.problem().starts_with("tuned table sm_80.json: "));
      return error.problem();
    }
    return "no error";
  };
  const auto table = [](const std::string& line, const std::string& schedule) {
    return fmt::format(R"({{"architecture": "sm_80", "schedules": {{"{}": "{}"}}}})", line, schedule);
  };
  CHECK(problem_of("{").find("parse error") != std::string::npos);
  CHECK(problem_of("[]") != "no error");
  CHECK(problem_of(R"({"architecture": "sm_80"})").find("schedules") != std::string::npos);
  CHECK(problem_of(R"({"architecture": "sm_80", "schedules": {"attention_forward:pattern=dense": 3}})") != "no error");
  CHECK(problem_of(table("attention_forward:pattern=dense,head_dim=80", "")).find("head_dim is '80'") !=
        std::string::npos);
  CHECK(problem_of(table("attention_forward:pattern=dense", "warp=3")).find("'warp' is unknown") != std::string::npos);
  CHECK(problem_of(table("attention_forward:pattern=block_list",
                         "family=sm80,block_q=128,block_k=64,stages=1,warps=4,blocks_per_processor=1"))
            .find("cannot run with") != std::string::npos);
}

TEST_CASE("a folder's table is the one named after the architecture") {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("tilewright-tuned-{}", ::getpid());
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "sm_90.json")
      << R"({"architecture": "sm_90", "schedules": {"attention_forward:pattern=dense": "family=sm80,block_q=64,block_k=32,stages=2,warps=4,blocks_per_processor=1"}})";
  CHECK(TunedTable::load(folder, {9, 0, 'a'}).size() == 1);
  CHECK(TunedTable::load(folder, {8, 0, 0}).size() == 0);
  CHECK(TunedTable::load(folder / "missing", {9, 0, 0}).size() == 0);
  std::filesystem::remove_all(folder);
}
