// tune from end to end in the emulator, and runtimes that read its table.
#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <optional>
#include <thread>
#include <vector>

#include "cache/lock.hpp"
#include "cache/tuned_schedules.hpp"
#include "command.hpp"
#include "schedule/heuristic.hpp"
#include "tools/tune_report.hpp"
#include "tools/tune_subject.hpp"

using namespace tilewright;

TEST_CASE("tune measures in the emulator, writes a table where it is told to, and a report") {
  const CommandLine command;
  const CommandResult result = command.run(
      "tune " + sliding +
      " --canvas 4x8x8 --heads 1 --device emulator --most-schedules 2 --rounds 5 --jobs 2 --report report --json "
      "--output tuned/sm_80.json");
  CAPTURE(result.error);
  REQUIRE(result.status == 0);
  const auto json = result.json();
  CHECK(json.at("wrong") == 0);
  CHECK(json.at("failed") == 0);
  CHECK(json.at("left_out").get<int>() > 0);
  CHECK(json.at("refused").get<int>() > 0);
  CHECK(json.at("winner").at("median_ms").get<double>() > 0);

  const auto path = command.folder() / "tuned/sm_80.json";
  CHECK_FALSE(
      std::filesystem::exists(command.folder() / "cache/tuned")); // a GPU's table is not the emulator's to write
  const auto table = nlohmann::json::parse(CommandLine::read(path));
  const std::string line = json.at("problem");
  CHECK(table.at("architecture") == "sm_80");
  CHECK(table.at("schedules").at(line) == json.at("winner").at("schedule"));
  const auto& measured = table.at("measured").at(line);
  CHECK(measured.at("environment").at("device") == "emulator (sm_80, seed 0)");
  CHECK(measured.at("call").at("canvas") == "4x8x8");
  CHECK(measured.at("winner").at("samples_ms").get<std::string>().find(' ') != std::string::npos);
  const std::string report = CommandLine::read(command.folder() / "report/report.md");
  CHECK(report.find("**winner**") != std::string::npos);
  CHECK(report.find("does not divide the tile") != std::string::npos);
  CHECK(CommandLine::read(command.folder() / "report/tuning_1.svg").find("</svg>") != std::string::npos);

  // A second problem is added, the first one stays.
  REQUIRE(command
              .run("tune attention_forward:pattern=dense,head_dim=64 --tokens 128 --heads 1 --device emulator "
                   "--most-schedules 1 --rounds 5 --output tuned/sm_80.json")
              .status == 0);
  CHECK(nlohmann::json::parse(CommandLine::read(path)).at("schedules").size() == 2);
}

TEST_CASE("tune on a GPU's path from end to end, on a driver where 42 KiB of shared memory are fastest") {
  const CommandLine command;
  if (command.run("doctor --json").json().at("NVRTC").at("ok") != true) {
    MESSAGE("SKIP: no NVRTC here");
    return;
  }
  const std::string problem = "attention_forward:pattern=dense,head_dim=64";
  const std::string gpu = fmt::format("TILEWRIGHT_LIBCUDA='{}' FAKE_CUDA_COMPUTES=1", TILEWRIGHT_FAKE_LIBCUDA);
  std::vector<nlohmann::json> results;
  for (const int seed : {1, 2}) { // two tunings, each with its own order of measuring
    const auto result =
        command.run(fmt::format("tune {} --tokens 384 --heads 1 --family sm80 --most-schedules 6 --rounds "
                                "7 --jobs 2 --order-seed {} --output run{}/sm_90.json --json",
                                problem, seed, seed),
                    gpu);
    CAPTURE(result.error);
    REQUIRE(result.status == 0);
    results.push_back(result.json());
  }
  const auto& winner = results[0].at("winner");
  CHECK(winner.at("schedule") == results[1].at("winner").at("schedule"));
  CHECK(results[0].at("wrong") == 0);
  CHECK(results[0].at("measured").get<int>() + results[0].at("hopeless").get<int>() > 1);
  CHECK(winner.at("schedule").get<std::string>().find("stages=3") != std::string::npos); // 41 KiB; the others 33 and 49
  CHECK(results[0].at("default").at("schedule").get<std::string>().find("stages=2") != std::string::npos);
  CHECK(results[0].at("gain").get<double>() == doctest::Approx(1.18 / 1.02 - 1).epsilon(0.02));
  CHECK(results[0].at("environment").at("device") == "Fake H100 (cuda:0)");

  // Who compiles with the table takes the winner; who launches finds it.
  const std::string tuned = fmt::format("TILEWRIGHT_TUNED='{}' ", (command.folder() / "run1").string());
  const auto compiled = command.run("compile " + problem + ",edges=full --arch sm_90 --json", tuned);
  CAPTURE(compiled.error);
  REQUIRE(compiled.status == 0);
  CHECK(compiled.json().at("schedule") == winner.at("schedule"));
  CHECK(compiled.json().at("cached") == true);
  const std::string bench = "bench " + problem + " --tokens 384 --heads 1 --rounds 1 --warm-up 0 --device cuda --json";
  const auto launched = command.run(bench, tuned + gpu + " TILEWRIGHT_NVRTC=/nowhere TILEWRIGHT_JIT=forbid");
  CAPTURE(launched.error);
  REQUIRE(launched.status == 0);
  CHECK(launched.json().at("cache") == "hit");
  CHECK(launched.json().at("milliseconds").get<double>() == doctest::Approx(winner.at("median_ms").get<double>()));
}

TEST_CASE("a tuning measures alone: it waits for another process that measures") {
  const CommandLine command;
  const std::string words = "tune attention_forward:pattern=dense,head_dim=64 --tokens 64 --heads 1 --device emulator "
                            "--most-schedules 1 --rounds 5 --output tuned/sm_80.json";
  const auto table = command.folder() / "tuned/sm_80.json";
  std::optional<cache::NameLock> measuring;
  measuring.emplace(cache::lock_file(), tools::measuring_lock, std::chrono::seconds(60));
  REQUIRE(measuring->state() == cache::NameLock::State::held);
  std::atomic<bool> finished{false};
  CommandResult result;
  {
    std::jthread tuning([&] {
      result = command.run(words);
      finished = true;
    });
    const auto kernels = command.folder() / "cache/emulator"; // compiled before, beside whoever measures
    const auto compiled = [&] {
      if (std::filesystem::exists(kernels))
        for (const auto& file : std::filesystem::directory_iterator(kernels))
          if (file.path().extension() == ".so")
            return true;
      return false;
    };
    for (int second = 0; second < 300 && !compiled(); ++second)
      std::this_thread::sleep_for(std::chrono::seconds(1));
    CHECK(compiled());
    std::this_thread::sleep_for(std::chrono::seconds(2)); // what it would need to measure, and more
    CHECK_FALSE(finished);
    CHECK_FALSE(std::filesystem::exists(table));
    measuring.reset();
  }
  CAPTURE(result.error);
  CHECK(result.status == 0);
  CHECK(std::filesystem::exists(table));
}

TEST_CASE("tune says what is missing, and explains without anything") {
  const CommandLine command;
  check_error(command.run("tune " + sliding + " --canvas 4x8x8 --heads 1"), 1, "no_device", "/nowhere/libcuda.so.1");
  const CommandResult explained = command.run("tune " + sliding + " --canvas 4x8x8 --heads 1 --explain --arch sm_90");
  CHECK(explained.status == 0);
  CHECK(explained.out.find("block_q=192 does not divide the tile of 64 tokens") != std::string::npos);
  CHECK(explained.out.find("to be tried") != std::string::npos);
  CHECK(command.run("tune " + sliding + " --rounds 0").status == 2);
  const CommandResult emulated = command.run("tune " + sliding + " --canvas 4x8x8 --heads 1 --device emulator");
  CHECK(emulated.status == 2);
  CHECK(emulated.error.find("--output") != std::string::npos);
}

TEST_CASE("a user's table overrides what the library ships; a bad one costs a warning") {
  const TemporaryFolder folder;
  const Architecture gpu{8, 0, 0};
  const Problem problem = parse_problem(sliding + ",text=0,edges=full");
  const Schedule standard = schedule::default_spec(problem, gpu).schedule;
  std::optional<Schedule> other;
  for (const auto& [schedule, refusals] : schedule::candidates(problem, gpu))
    if (refusals.empty() && schedule != standard)
      other = schedule;
  REQUIRE(other);
  std::filesystem::create_directories(folder.path() / "tuned");
  std::ofstream(folder.path() / "tuned/sm_80.json") << R"({"architecture": "sm_80", "schedules": {")"
                                                    << to_string(problem) << R"(": ")" << to_string(*other) << R"("}})";
  std::vector<std::string> messages;
  const auto tuned = [&] {
    return cache::tuned_schedules(gpu, folder.path(), [&](std::string_view text) { messages.emplace_back(text); });
  };
  CHECK(tuned().find(problem) == other);
  const auto table = tuned();
  CHECK(schedule::default_spec(problem, gpu, Family::automatic, &table).schedule == other);
  ::setenv("TILEWRIGHT_TUNED", "none", 1);
  CHECK_FALSE(tuned().find(problem));
  ::unsetenv("TILEWRIGHT_TUNED");
  CHECK(messages.empty());
  std::filesystem::permissions(folder.path() / "tuned/sm_80.json", std::filesystem::perms::all);
  CHECK_FALSE(tuned().find(problem)); // others may write to it
  std::filesystem::remove(folder.path() / "tuned/sm_80.json");
  std::ofstream(folder.path() / "tuned/sm_80.json") << R"({"architecture": "sm_80", "schedules": {"nonsense": "x"}})";
  CHECK_FALSE(tuned().find(problem));
  CHECK(messages.size() == 2);
}

TEST_CASE("every table that the library ships can be read, and names schedules that run") {
  for (const int number : {80, 86, 89, 90, 100, 120})
    CHECK_NOTHROW(schedule::TunedTable::shipped(
        {static_cast<std::uint8_t>(number / 10), static_cast<std::uint8_t>(number % 10), 0}));
}
