#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <sys/stat.h>

#include "support/files.hpp"
#include "support/hash.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::support;
namespace fs = std::filesystem;

namespace {

struct Folder {
  fs::path path;
  Folder() {
    std::string name = (fs::temp_directory_path() / "tilewright-files-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~Folder() { fs::remove_all(path); }
};

std::span<const std::byte> bytes(std::string_view text) { return std::as_bytes(std::span(text)); }

std::string failure(const auto& action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_argument);
    return error.problem();
  }
  return "";
}

} // namespace

TEST_CASE("a file is written whole, replaced whole, and readable by its user alone") {
  const Folder folder;
  const fs::path file = folder.path / "file";
  const std::string large(3'000'000, 'x');
  write_atomically(file, bytes(large));
  CHECK(read_file(file) == large);
  write_atomically(file, bytes("small"));
  CHECK(read_file(file) == "small");
  write_atomically(file, {});
  CHECK(read_file(file).empty());
  CHECK(fs::status(file).permissions() == (fs::perms::owner_read | fs::perms::owner_write));
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1); // no temporary file is left
}

TEST_CASE("a failed write says why and leaves the old file and no temporary one") {
  const Folder folder;
  CHECK(failure([&] { write_atomically(folder.path / "missing" / "file", bytes("x")); }).find("No such file") !=
        std::string::npos);
  fs::create_directories(folder.path / "taken" / "inside");
  CHECK_FALSE(failure([&] { write_atomically(folder.path / "taken", bytes("x")); }).empty());
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("files whose size the system does not tell are read whole") {
  CHECK(read_file("/proc/self/maps").find("[stack]") != std::string::npos);
  CHECK(failure([] { read_file("/nowhere/at/all"); }).find("/nowhere/at/all") != std::string::npos);
}

TEST_CASE("only what this user owns and nobody else may write to is read as its own") {
  const Folder folder;
  const fs::path file = folder.path / "file";
  CHECK_FALSE(read_own_file(file));
  write_atomically(file, bytes("text"));
  CHECK(read_own_file(file)->bytes == "text");
  fs::create_symlink(file, folder.path / "link");
  CHECK(failure([&] { read_own_file(folder.path / "link"); }).find("symbolic link") != std::string::npos);
  CHECK(failure([&] { read_own_file(folder.path); }).find("not a regular file") != std::string::npos);
  fs::permissions(file, fs::perms::others_write, fs::perm_options::add);
  CHECK(failure([&] { read_own_file(file); }).find("written to by others") != std::string::npos);
  CHECK(read_own_file(file, true)->bytes == "text");
}

TEST_CASE("private folders are made with their parents, and checked") {
  const Folder folder;
  const fs::path deep = folder.path / "a" / "b" / "c";
  create_private_folder(deep);
  create_private_folder(deep);
  CHECK(fs::status(folder.path / "a").permissions() == fs::perms::owner_all);
  CHECK_NOTHROW(check_private_folder(deep));
  fs::create_symlink(deep, folder.path / "link");
  CHECK_THROWS_AS(check_private_folder(folder.path / "link"), Error);
  fs::permissions(deep, fs::perms::group_write, fs::perm_options::add);
  CHECK_THROWS_AS(check_private_folder(deep), Error);
  CHECK_THROWS_AS(check_private_folder(folder.path / "nothing"), Error);
  std::ofstream(folder.path / "file") << "x";
  CHECK_THROWS_AS(create_private_folder(folder.path / "file" / "below"), Error);
}

TEST_CASE("hashes have the published values of XXH3") {
  // XXH3_128bits and XXH3_64bits of the empty input, seed 0: from the xxHash specification's sanity values.
  CHECK(to_string(hash128({})) == "99aa06d3014798d86001c324468d497f");
  CHECK(hash64({}) == 0x2d06800538d394c2U);
}

TEST_CASE("fields cannot run into each other") {
  const auto digest = [](const std::vector<std::pair<std::string, std::string>>& fields) {
    FieldHasher hasher;
    for (const auto& [tag, value] : fields)
      hasher.field(tag, value);
    return hasher.digest();
  };
  const auto one = digest({{"ab", "c"}});
  CHECK(one == digest({{"ab", "c"}}));
  CHECK(one != digest({{"a", "bc"}}));
  CHECK(one != digest({{"ab", "c"}, {"", ""}}));
  CHECK(digest({{"a", "1"}, {"b", "2"}}) != digest({{"b", "2"}, {"a", "1"}}));
  CHECK(digest({{"a", std::string("x\0y", 3)}}) != digest({{"a", "x"}}));
}
