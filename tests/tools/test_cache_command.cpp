// warmup and cache, from end to end.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cache/store.hpp"
#include "command.hpp"
#include "compiler/library.hpp"
#include "support/text.hpp"

using namespace tilewright;

namespace {

std::string key_of(int number) {
  const std::string text = std::to_string(number);
  return to_string(support::hash128(std::as_bytes(std::span(text))));
}

/// An entry whose cubin is so many bytes of anything.
void publish(const std::filesystem::path& folder, int number, std::size_t bytes = 1000) {
  const std::string text = std::to_string(number);
  cache::CacheEntry entry;
  entry.key = support::hash128(std::as_bytes(std::span(text)));
  entry.spec = "made up " + text + "@sm_80/nothing";
  entry.kernel_name = "made_up";
  entry.compiler_identity = "build-id 0123";
  entry.compiler_version = number % 2 == 0 ? "13.0" : "12.9";
  entry.compile_milliseconds = 500;
  entry.cubin.resize(bytes);
  cache::Store(folder, cache::Store::Access::read_write).publish(entry);
}

std::vector<nlohmann::json> lines_of(const std::string& text) {
  std::vector<nlohmann::json> lines;
  for (std::size_t start = 0, end = 0; (end = text.find('\n', start)) != std::string::npos; start = end + 1)
    lines.push_back(nlohmann::json::parse(text.substr(start, end - start)));
  return lines;
}

bool has_nvrtc(const CommandLine& command) {
  if (command.run("doctor --json").json().at("NVRTC").at("ok") == true)
    return true;
  MESSAGE("SKIP: no NVRTC here");
  return false;
}

} // namespace

TEST_CASE("cache list, show and stats tell what is there") {
  const CommandLine command;
  const auto folder = command.folder() / "cache";
  for (int number = 0; number < 4; ++number)
    publish(folder, number);
  const auto entries = lines_of(command.run("cache list --json").out);
  REQUIRE(entries.size() == 4);
  for (const auto& entry : entries)
    CHECK(entry.at("cubin_bytes") == 1000);
  CHECK(command.run("cache list").out.find("made up 3") != std::string::npos);

  const auto shown = command.run("cache show --json " + key_of(2).substr(0, 9)).json();
  CHECK(shown.at("key") == key_of(2));
  CHECK(shown.at("spec") == "made up 2@sm_80/nothing");
  CHECK(shown.at("compiler") == "13.0");
  CHECK(command.run("cache show " + key_of(2)).out.find("made up 2") != std::string::npos);
  check_error(command.run("cache show ffffffffffff"), 1, "invalid_argument", "ffffffffffff");

  const auto stats = command.run("cache stats --json").json();
  CHECK(stats.at("entries") == 4);
  CHECK(stats.at("bytes").get<int>() > 4000);
  CHECK(stats.at("unusable") == 0);
  CHECK(stats.at("compile_seconds") == 2.0);
  CHECK(stats.at("architectures").at("sm_80").at("entries") == 4);
  CHECK(stats.at("compilers").at("12.9").at("entries") == 2);
  CHECK(command.run("cache stats").out.find("sm_80") != std::string::npos);
  CHECK(command.run("cache").status == 2);
  check_error(command.run("cache list --cache nowhere"), 1, "invalid_argument", "nowhere");
}

TEST_CASE("cache verify finds the one damaged entry, sets it aside, and says so with status 1") {
  const CommandLine command;
  const auto folder = command.folder() / "cache";
  for (int number = 0; number < 3; ++number)
    publish(folder, number);
  CHECK(command.run("cache verify").status == 0);
  const auto path = cache::Store(folder, cache::Store::Access::read_only).list().front().path;
  std::string bytes = CommandLine::read(path);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write(path, bytes);
  const CommandResult result = command.run("cache verify --json");
  CHECK(result.status == 1);
  CHECK(result.json().at("good") == 2);
  CHECK(result.json().at("corrupt") == 1);
  CHECK(result.error.find(path.filename().string()) != std::string::npos);
  CHECK(result.error.find("cache_corrupt") != std::string::npos);
  const auto after = command.run("cache verify --json");
  CHECK(after.status == 0);
  CHECK(after.json().at("good") == 2);
  CHECK(command.run("cache stats --json").json().at("set_aside") == 1);
}

TEST_CASE("cache prune removes down to the limits") {
  const CommandLine command;
  for (int number = 0; number < 10; ++number)
    publish(command.folder() / "cache", number, 100'000);
  const auto result = command.run("cache prune --max-entries 5 --json").json();
  CHECK(result.at("removed_entries").get<int>() == 5);
  CHECK(result.at("left_entries").get<int>() == 5);
  CHECK(command.run("cache prune --max-bytes 250KB --json").json().at("left_entries").get<int>() == 2);
  CHECK(command.run("cache prune --max-bytes lots").status == 2);
}

TEST_CASE("a manifest that is none is refused with its path and member") {
  const CommandLine command;
  const auto refuses = [&](const std::string& text, const std::string& fragment) {
    write(command.folder() / "manifest.json", text);
    CAPTURE(text);
    check_error(command.run("warmup manifest.json"), 1, "invalid_argument", fragment);
  };
  refuses("[", "no JSON object");
  refuses(R"({"architectures": ["sm_80"], "problems": []})", "'problems'");
  refuses(R"({"architectures": "sm_80", "problems": ["x"]})", "'architectures'");
  refuses(R"({"architectures": ["sm_80"], "problems": [1]})", "'problems'");
  refuses(R"({"architectures": ["sm_8x"], "problems": [")" + dense + R"("]})", "sm_8x");
  refuses(R"({"architectures": ["sm_80"], "problems": ["attention_forward:pattern=dens"]})", "dens");
  refuses(R"({"architectures": ["sm_80"], "problems": [")" + dense + R"("], "windows": 3})", "windows");
  check_error(command.run("warmup missing.json"), 1, "invalid_argument", "missing.json");
}

TEST_CASE("warmup compiles with two workers, resumes, and jit=forbid then runs every problem") {
  const CommandLine command;
  if (!has_nvrtc(command))
    return;
  write(command.folder() / "manifest.json",
        R"({"name": "test", "architectures": ["sm_80"], "problems": [")" + dense + R"("]})");
  check_error(command.run("compile " + dense + ",edges=full --arch sm_80 --jit forbid"), 1, "jit_forbidden",
              "tilewright compile");
  REQUIRE(command.run("compile " + dense + ",edges=full --arch sm_80").status == 0);
  const auto run = command.run("warmup manifest.json --jobs 2 --json"); // goes on where it was: one of two is there
  CAPTURE(run.error);
  REQUIRE(run.status == 0);
  std::size_t cached = 0;
  for (const auto& line : lines_of(run.out))
    cached += line.at("cached").get<bool>() ? 1U : 0U;
  CHECK(lines_of(run.out).size() == 2);
  CHECK(cached == 1);
  CHECK(command.run("warmup manifest.json").out.find("2 in the cache before") != std::string::npos);
  CHECK(command.run("compile " + dense + " --arch sm_80 --jit forbid").status == 0);

  const auto verified = command.run("cache verify --recompile --json").json(); // NVRTC gives the same bytes each time
  CHECK(verified.at("recompiled") == 2);
  CHECK(verified.at("different") == 0);

  const auto failing = command.run("warmup manifest.json --arch sm_75,sm_80 --json"); // one fails, the others do not
  CHECK(failing.status == 1);
  CHECK(lines_of(failing.out).size() == 4);
  CHECK(failing.error.find("2 of 4 kernels") != std::string::npos);
  CHECK(failing.error.find("sm_75") != std::string::npos);
}

TEST_CASE("a warmup that is killed leaves no process behind and goes on where it was") {
  const CommandLine command;
  if (!has_nvrtc(command))
    return;
  write(command.folder() / "manifest.json",
        R"({"name": "test", "architectures": ["sm_80", "sm_86", "sm_89"], "problems": [")" + dense + R"("]})");
  const std::string words = "warmup manifest.json --jobs 2 --json";
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const ::pid_t child = ::fork();
  if (child == 0) {
    ::dup2(ends[1], STDOUT_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    ::setenv("TILEWRIGHT_CACHE", (command.folder() / "cache").c_str(), 1);
    ::setenv("TILEWRIGHT_LIBCUDA", "/nowhere/libcuda.so.1", 1);
    if (::chdir(command.folder().c_str()) == 0)
      ::execl(TILEWRIGHT_COMMAND, TILEWRIGHT_COMMAND, "warmup", "manifest.json", "--jobs", "2", "--json", nullptr);
    ::_exit(127);
  }
  ::close(ends[1]);
  std::string seen;
  for (char byte = 0; byte != '\n' && ::read(ends[0], &byte, 1) == 1;) // until the first kernel is there
    seen += byte;
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  REQUIRE(nlohmann::json::parse(seen).at("cached") == false);
  while (::read(ends[0], seen.data(), 1) == 1) { // ends when the last worker, which has the pipe as well, has ended
  }
  ::close(ends[0]);

  const auto run = command.run(words);
  CAPTURE(run.error);
  REQUIRE(run.status == 0);
  std::size_t cached = 0;
  for (const auto& line : lines_of(run.out))
    cached += line.at("cached").get<bool>() ? 1U : 0U;
  CHECK(lines_of(run.out).size() == 6);
  CHECK(cached >= 1);
  CHECK(cached < 6); // else it was killed too late, and has shown nothing
  CHECK(command.run("cache verify").status == 0);
}

// scripts/test_nvrtc_versions.sh installs NVRTC 12.9 and 13.x from their wheels, and runs this with both.
TEST_CASE("versions of NVRTC side by side never share an entry") {
  const CommandLine command;
  std::map<std::string, compiler::Candidate> by_build;
  for (const compiler::Candidate& candidate : compiler::nvrtc_candidates())
    if (!candidate.build_id.empty() && candidate.major >= 12)
      by_build.emplace(candidate.build_id, candidate);
  if (by_build.size() < 2) {
    MESSAGE("SKIP: there are not two builds of NVRTC here; scripts/test_nvrtc_versions.sh installs them");
    return;
  }
  const std::string problem = "compile " + dense + ",edges=full --arch sm_80 --json";
  std::map<std::string, std::string> version_of; // by build
  std::string key;
  for (const bool again : {false, true})
    for (const auto& [build, candidate] : by_build) {
      const auto result = command.run(problem, fmt::format("TILEWRIGHT_NVRTC='{}'", candidate.path.string()));
      const auto& path = candidate.path;
      CAPTURE(path);
      CAPTURE(result.error);
      REQUIRE(result.status == 0);
      CHECK(result.json().at("cached") == again); // its own the second time, and nobody else's the first
      const std::string version = result.json().at("compiler");
      CHECK(version.starts_with(std::to_string(candidate.major) + "."));
      CHECK((!again || version_of.at(build) == version));
      version_of[build] = version;
      CHECK((key.empty() || result.json().at("key") == key)); // the same request
      key = result.json().at("key");
    }
  CHECK(command.run("cache stats --json").json().at("entries") == by_build.size());
  if (const char* const expected = std::getenv("TILEWRIGHT_EXPECT_NVRTC"))
    for (const std::string_view start : support::split(expected, ' '))
      CHECK(std::any_of(version_of.begin(), version_of.end(),
                        [&](const auto& entry) { return entry.second.starts_with(start); }));

  // Without any of them the newest entry is served, whichever it is; an image needs no compiler.
  const auto bare = command.run(problem, "TILEWRIGHT_NVRTC=/nowhere TILEWRIGHT_JIT=forbid");
  CAPTURE(bare.error);
  REQUIRE(bare.status == 0);
  CHECK(bare.json().at("cached") == true);
  CHECK(bare.json().at("compiler") == version_of.rbegin()->second); // compiled last
}
