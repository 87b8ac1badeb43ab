// A key is the same for everybody who asks for the same kernel.
#include <doctest/doctest.h>

#include <fmt/format.h>

#include "cache/fixture.hpp"
#include "cache/key.hpp"
#include "codegen/source.hpp"
#include "schedule/heuristic.hpp"

using namespace tilewright;
using namespace tilewright::test;

namespace {

support::Hash128 key_here() {
  const Problem problem = parse_problem("attention_forward:pattern=dense,edges=full,dtype=bf16,head_dim=64");
  const Spec spec = schedule::default_spec(problem, {8, 0, 0});
  return cache::request_key(codegen::generate(spec), spec.architecture);
}

support::Hash128 key_of_child(::uid_t user) {
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const ::pid_t child = start_child([&] {
    if (user != ::geteuid() && ::setuid(user) != 0)
      return 1;
    if (::chdir("/") != 0 || ::setenv("HOME", "/nonexistent", 1) != 0)
      return 2;
    const support::Hash128 key = key_here();
    return ::write(ends[1], &key, sizeof key) == sizeof key ? 0 : 3;
  });
  support::Hash128 key;
  CHECK(wait_for(child) == 0);
  REQUIRE(::read(ends[0], &key, sizeof key) == sizeof key);
  ::close(ends[0]);
  ::close(ends[1]);
  return key;
}

} // namespace

TEST_CASE("two processes, two users and two folders of the same templates have the same key") {
  const support::Hash128 key = key_here();
  CHECK(key_of_child(::geteuid()) == key);
  if (::geteuid() == 0)
    CHECK(key_of_child(65534) == key); // nobody
  else
    MESSAGE("SKIP: only root can ask as another user");

  const char* const project = std::getenv("TILEWRIGHT_SOURCE_DIR");
  if (project == nullptr) {
    MESSAGE("SKIP: ctest names the project's folder");
    return;
  }
  const TemporaryFolder one, two;
  const fs::path first = one.path / "short", second = two.path / "a/longer/path";
  for (const fs::path& copy : {first, second}) {
    fs::create_directories(copy.parent_path());
    fs::copy(fs::path(project) / "templates", copy, fs::copy_options::recursive);
    const Variable folder("TILEWRIGHT_TEMPLATES", copy.string());
    CHECK(key_here() == key);
  }
  // And a template that says something else makes another key.
  for (const auto& file : fs::recursive_directory_iterator(second))
    if (file.path().extension() == ".cu")
      std::ofstream(file.path(), std::ios::app) << "\nconstexpr int one_more = 1;\n";
  const Variable folder("TILEWRIGHT_TEMPLATES", second.string());
  CHECK(key_here() != key);
}

TEST_CASE("two build folders of two copies of the project embed the same bytes, and no path of either") {
  const char* const project = std::getenv("TILEWRIGHT_SOURCE_DIR");
  if (project == nullptr) {
    MESSAGE("SKIP: ctest names the project's folder");
    return;
  }
  const TemporaryFolder one, two;
  std::vector<std::string> embedded;
  for (const fs::path& copy : {one.path / "short", two.path / "a/longer/path"}) {
    fs::create_directories(copy / "build");
    for (const char* part : {"templates", "cmake"})
      fs::copy(fs::path(project) / part, copy / part, fs::copy_options::recursive);
    // The build's own command (cmake/TilewrightModules.cmake).
    const fs::path output = copy / "build/embedded_templates.cpp";
    const std::string line =
        fmt::format("cmake -DTEMPLATES='{0}/templates' -DOUTPUT='{1}' -P '{0}/cmake/EmbedTemplates.cmake'",
                    copy.string(), output.string());
    REQUIRE(std::system(line.c_str()) == 0);
    embedded.push_back(bytes_of(output));
    CHECK(embedded.back().find(copy.string()) == std::string::npos);
  }
  REQUIRE(embedded[0].size() > 100'000); // else nothing was embedded
  CHECK(embedded[0] == embedded[1]);
  // What the key is made of, in this build folder.
  const Problem problem = parse_problem("attention_forward:pattern=dense,edges=full,dtype=bf16,head_dim=64");
  const std::string source = codegen::generate(schedule::default_spec(problem, {8, 0, 0})).text;
  for (const std::string& path : {std::string(project), fs::current_path().string()})
    CHECK(source.find(path) == std::string::npos);
}
