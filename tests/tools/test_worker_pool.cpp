// Work spread over processes.
#include <doctest/doctest.h>

#include <csignal>
#include <map>
#include <set>
#include <stdexcept>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

#include "tools/worker_pool.hpp"
#include <tilewright/error.hpp>

using tilewright::tools::run_in_processes;

namespace {

bool has_children() { return ::waitpid(-1, nullptr, WNOHANG) >= 0; }

} // namespace

TEST_CASE("every job is done once, whatever the number of workers, and long results come whole") {
  const std::string parent = std::to_string(::getpid());
  for (const unsigned workers : {1U, 2U, 5U, 40U}) {
    CAPTURE(workers);
    std::map<std::size_t, std::string> results;
    std::set<std::string> processes;
    run_in_processes(
        20, workers, [](std::size_t job) { return std::to_string(::getpid()) + ":" + std::string(job * 10'000, 'x'); },
        [&](std::size_t job, const std::optional<std::string>& result) {
          REQUIRE(result);
          processes.insert(result->substr(0, result->find(':')));
          CHECK(results.emplace(job, result->substr(result->find(':') + 1)).second);
        });
    REQUIRE(results.size() == 20);
    for (const auto& [job, result] : results)
      CHECK(result == std::string(job * 10'000, 'x'));
    CHECK(processes.contains(parent) == (workers == 1));
    CHECK_FALSE(has_children());
  }
  run_in_processes(
      0, 4, [](std::size_t) { return ""; }, [](std::size_t, const auto&) { FAIL("there is no job"); });
}

TEST_CASE("a worker that dies loses its job only") {
  std::size_t lost = 99, done = 0;
  run_in_processes(
      6, 2,
      [](std::size_t job) {
        if (job == 2)
          ::raise(SIGKILL);
        return std::to_string(job);
      },
      [&](std::size_t job, const std::optional<std::string>& result) {
        if (!result)
          lost = job;
        else
          ++done;
      });
  CHECK(lost == 2);
  CHECK(done == 5);
  CHECK_FALSE(has_children());
}

TEST_CASE("where all workers die, or the caller throws, the caller hears of it and nothing is left behind") {
  CHECK_THROWS_AS(run_in_processes(
                      6, 2, [](std::size_t) -> std::string { ::_exit(1); },
                      [](std::size_t, const std::optional<std::string>& result) { CHECK_FALSE(result); }),
                  tilewright::Error);
  CHECK_FALSE(has_children());
  CHECK_THROWS_AS(run_in_processes(
                      6, 3, [](std::size_t) { return std::string("done"); },
                      [](std::size_t, const auto&) { throw std::runtime_error("no"); }),
                  std::runtime_error);
  CHECK_FALSE(has_children());
}
