// Where libnvrtc is looked for. A small real library of this machine stands in for it: only its ELF header is read.
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>

#include <dlfcn.h>
#include <unistd.h>

#include "compiler/build_id.hpp"
#include "compiler/library.hpp"
#include "compiler/loader_cache.hpp"

using namespace tilewright;
namespace fs = std::filesystem;

namespace {

/// Sets an environment variable (or removes it), and puts it back.
class Variable {
public:
  Variable(const char* name, const std::string& value) : name_(name) {
    if (const char* old = std::getenv(name))
      old_ = old;
    value.empty() ? ::unsetenv(name) : ::setenv(name, value.c_str(), 1);
  }
  ~Variable() { old_ ? ::setenv(name_, old_->c_str(), 1) : ::unsetenv(name_); }
  Variable(const Variable&) = delete;
  Variable& operator=(const Variable&) = delete;

private:
  const char* name_;
  std::optional<std::string> old_;
};

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "tilewright-test-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
};

/// A real shared library with a build id: the one that holds the C library's functions.
fs::path real_library() {
  ::Dl_info info{};
  REQUIRE(::dladdr(reinterpret_cast<const void*>(&::getpid), &info) != 0);
  return fs::canonical(info.dli_fname);
}

void install(const fs::path& path) {
  fs::create_directories(path.parent_path());
  fs::copy_file(real_library(), path);
}

std::optional<std::size_t> position(const std::vector<compiler::Candidate>& candidates, const fs::path& path) {
  for (std::size_t index = 0; index < candidates.size(); ++index)
    if (candidates[index].path == path)
      return index;
  return std::nullopt;
}

} // namespace

TEST_CASE("a library's build id is the same in its file and in memory") {
  const std::string in_file = compiler::build_id_of_file(real_library());
  REQUIRE(in_file.size() >= 16);
  CHECK(in_file.find_first_not_of("0123456789abcdef") == std::string::npos);
  CHECK(compiler::build_id_of_loaded(reinterpret_cast<const void*>(&::getpid)) == in_file);
}

TEST_CASE("what is no library has no build id") {
  const Folder folder;
  std::ofstream(folder.path / "text") << "not a library";
  std::ofstream(folder.path / "empty").flush();
  fs::copy_file(real_library(), folder.path / "cut");
  fs::resize_file(folder.path / "cut", 200); // the header is there, the notes are not
  for (const char* name : {"text", "empty", "cut", "missing", "."})
    CHECK_MESSAGE(compiler::build_id_of_file(folder.path / name).empty(), name);
}

TEST_CASE("TILEWRIGHT_NVRTC names a file or a folder, and nothing else is tried") {
  const Folder folder;
  install(folder.path / "libnvrtc.so.12");
  {
    const Variable named("TILEWRIGHT_NVRTC", (folder.path / "libnvrtc.so.12").string());
    const auto candidates = compiler::nvrtc_candidates();
    REQUIRE(candidates.size() == 1);
    CHECK(candidates[0].major == 12);
    CHECK(compiler::choose_nvrtc(candidates, 0)->path == folder.path / "libnvrtc.so.12");
  }
  {
    const Variable named("TILEWRIGHT_NVRTC", folder.path.string());
    CHECK(compiler::choose_nvrtc(compiler::nvrtc_candidates(), 0)->path == folder.path / "libnvrtc.so.12");
  }
  const Variable named("TILEWRIGHT_NVRTC", (folder.path / "nothing").string());
  CHECK_FALSE(compiler::choose_nvrtc(compiler::nvrtc_candidates(), 0));
}

TEST_CASE("the places are tried in the documented order") {
  const Folder loader, toolkit, environment, home;
  install(loader.path / "libnvrtc.so.12");
  install(toolkit.path / "lib64/libnvrtc.so.13");
  install(environment.path / "lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
  install(home.path / ".local/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
  const Variable none("TILEWRIGHT_NVRTC", ""), path("LD_LIBRARY_PATH", "/nowhere:" + loader.path.string()),
      root("CUDA_HOME", toolkit.path.string()), virtual_environment("VIRTUAL_ENV", environment.path.string()),
      user("HOME", home.path.string());
  const auto candidates = compiler::nvrtc_candidates();
  const auto first = position(candidates, loader.path / "libnvrtc.so.12");
  const auto second = position(candidates, toolkit.path / "lib64/libnvrtc.so.13");
  const auto third =
      position(candidates, environment.path / "lib/python3.11/site-packages/nvidia/cu13/lib/libnvrtc.so.13");
  const auto fourth =
      position(candidates, home.path / ".local/lib/python3.12/site-packages/nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
  REQUIRE((first && second && third && fourth));
  CHECK(*first < *second);
  CHECK(*second < *third);
  CHECK(*third < *fourth);
  for (const auto index : {*first, *second, *third, *fourth})
    CHECK_FALSE(candidates[index].build_id.empty());
}

TEST_CASE("a major version that the driver does not know is used only where there is no other") {
  const compiler::Candidate newer{"a", "/a/libnvrtc.so.13", 13, "aa"}, older{"b", "/b/libnvrtc.so.12", 12, "bb"},
      ancient{"c", "/c/libnvrtc.so.11.2", 11, "cc"}, missing{"d", "/d/libnvrtc.so.12", 12, ""};
  CHECK(compiler::choose_nvrtc({missing, newer, older}, 0)->path == newer.path);
  CHECK(compiler::choose_nvrtc({missing, newer, older}, 13)->path == newer.path);
  CHECK(compiler::choose_nvrtc({missing, newer, older}, 12)->path == older.path);
  CHECK(compiler::choose_nvrtc({missing, newer}, 12)->path == newer.path);
  CHECK_FALSE(compiler::choose_nvrtc({missing, ancient}, 0));
}

TEST_CASE("the loader's table gives what the loader itself would open") {
  if (!fs::exists("/etc/ld.so.cache")) {
    MESSAGE("SKIPPED: this machine has no /etc/ld.so.cache");
    return;
  }
  const auto found = compiler::loader_cache_lookup("libstdc++.so.6");
  REQUIRE_FALSE(found.empty());
  CHECK(fs::exists(found.front()));
  CHECK(compiler::loader_cache_lookup("libtilewright-nothing.so.1").empty());
}

TEST_CASE("a damaged loader table is ignored") {
  const Folder folder;
  const fs::path table = folder.path / "ld.so.cache";
  std::ofstream(table) << "glibc-ld.so.cache1.1";
  CHECK(compiler::loader_cache_lookup("libc.so.6", table).empty());
  std::ofstream(table) << "glibc-ld.so.cache1.1" << std::string(28, '\xff'); // 2^32 - 1 libraries
  CHECK(compiler::loader_cache_lookup("libc.so.6", table).empty());
}
