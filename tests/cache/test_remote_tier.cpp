// What the library asks of a remote cache, and what it thinks of the answers. The HTTP one:
// tests/tools/test_remote.cpp.
#include <doctest/doctest.h>

#include <stdexcept>

#include "cache/fixture.hpp"

using namespace tilewright;
using namespace tilewright::test;
using cache::KernelCache;

namespace {

/// Answers as it is told, and notes what it was asked for.
class ToldRemote final : public RemoteCache {
public:
  explicit ToldRemote(std::function<std::optional<std::string>()> answer) : answer_(std::move(answer)) {}
  std::optional<std::string> fetch(const std::string& name) override {
    asked.push_back(name);
    return answer_();
  }
  std::vector<std::string> asked;

private:
  std::function<std::optional<std::string>()> answer_;
};

std::string entry_file(int number) {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec_number(number));
  return bytes_of(only_entry(folder.path));
}

} // namespace

TEST_CASE("a remote entry is asked for once, under the name that it has on disk, and kept there") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  const auto remote = std::make_shared<ToldRemote>([] { return entry_file(1); });
  KernelCache cache({.folder = folder.path, .remote = remote}, {}, compiler.toolchain());
  CHECK(cache.get(spec_number(1))->cubin == expected_cubin(spec_number(1)));
  cache.get(spec_number(1));
  CHECK(compiler.compiles == 0);
  CHECK(cache.statistics().remote_hits == 1);
  REQUIRE(remote->asked.size() == 1);
  CHECK(folder.path / remote->asked.front() == only_entry(folder.path));
}

TEST_CASE("no answer and an entry of another format are misses; the remote cache is asked again for other kernels") {
  for (const bool other_format : {false, true}) {
    const TemporaryFolder folder;
    CountingCompiler compiler;
    Messages messages;
    const auto remote = std::make_shared<ToldRemote>([&]() -> std::optional<std::string> {
      if (!other_format)
        return std::nullopt;
      std::string file = entry_file(1);
      file[8] = '\2'; // the format version
      return file;
    });
    KernelCache cache({.folder = folder.path, .remote = remote}, messages.callback(), compiler.toolchain());
    CHECK(cache.get(spec_number(1))->origin == KernelOrigin::compiled);
    cache.get(spec_number(2));
    CHECK(remote->asked.size() == 2);
    CHECK(compiler.compiles == 2);
    CHECK(messages.all.empty());
  }
}

TEST_CASE("a remote cache that fails, lies or throws anything is left alone from then on, with one warning") {
  const std::string good = entry_file(1), of_another = entry_file(7);
  const std::vector<std::pair<const char*, std::function<std::optional<std::string>()>>> faults{
      {"corrupt", [&] { return good.substr(0, good.size() / 2); }},
      {"corrupt", [] { return std::string(); }},
      {"another kernel's entry", [&] { return of_another; }},
      {"no route", []() -> std::optional<std::string> { throw Error(ErrorCode::internal, "no route", "one", "wait"); }},
      {"a bug in it", []() -> std::optional<std::string> { throw std::runtime_error("a bug in it"); }}};
  for (const auto& [name, answer] : faults) {
    const char* const reason = name;
    CAPTURE(reason);
    const TemporaryFolder folder;
    CountingCompiler compiler;
    Messages messages;
    const auto remote = std::make_shared<ToldRemote>(answer);
    KernelCache cache({.folder = folder.path, .remote = remote}, messages.callback(), compiler.toolchain());
    for (const int number : {1, 2, 3})
      CHECK(cache.get(spec_number(number))->cubin == expected_cubin(spec_number(number)));
    CHECK(remote->asked.size() == 1);
    CHECK(compiler.compiles == 3);
    CHECK(cache.statistics().remote_hits == 0);
    CHECK(messages.about(reason) == 1);
    CHECK(messages.about("left alone") == 1);
    CHECK(messages.all.size() == 1);
    CHECK(KernelCache({.folder = folder.path}, {}, compiler.toolchain()).get(spec_number(1))->origin ==
          KernelOrigin::disk);
  }
}
