// Bundles: the same bytes each time, verified before anything is published; and a cold container that starts from one.
#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <span>

#include <unistd.h>

#include "cache/store.hpp"
#include "command.hpp"
#include "tools/bundle.hpp"
#include "tools/signature.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::tools;

namespace {

void publish_numbered(const std::filesystem::path& folder, int number) {
  const std::string text = std::to_string(number);
  cache::CacheEntry entry;
  entry.key = support::hash128(std::as_bytes(std::span(text)));
  entry.spec = "made up " + text + (number % 2 == 0 ? "@sm_80/x" : "@sm_90a/x");
  entry.kernel_name = "made_up";
  entry.compiler_identity = "build-id 0123";
  entry.cubin.resize(5000, static_cast<std::byte>(number));
  cache::Store(folder, cache::Store::Access::read_write).publish(entry);
}

std::size_t entries_in(const std::filesystem::path& folder) {
  return std::filesystem::exists(folder) ? cache::Store(folder, cache::Store::Access::read_only).list().size() : 0;
}

} // namespace

TEST_CASE("a digest and a signature are what their definitions say") {
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"); // FIPS 180-4
  const CommandLine command;
  make_keys(command, "key");
  const auto key = command.folder() / "key.pem", public_key = command.folder() / "key.pub";
  const std::string signature = sign("a text", key);
  CHECK(is_signed("a text", signature, public_key));
  CHECK_FALSE(is_signed("a tent", signature, public_key));
  CHECK_FALSE(is_signed("a text", signature.substr(1), public_key));
  CHECK_FALSE(is_signed("a text", "", public_key));
  CHECK_THROWS_AS((void)is_signed("a text", signature, key), Error);
  CHECK_THROWS_AS((void)sign("a text", public_key), Error);
}

TEST_CASE("two exports of the same entries are the same file, whatever the order and time of publishing") {
  const CommandLine command;
  for (int number = 0; number < 6; ++number)
    publish_numbered(command.folder() / "cache", number);
  for (int number = 5; number >= 0; --number)
    publish_numbered(command.folder() / "other", number);
  REQUIRE(command.run("cache export one.tar.zst").status == 0);
  REQUIRE(command.run("cache export two.tar.zst --cache other").status == 0);
  CHECK(CommandLine::read(command.folder() / "one.tar.zst") == CommandLine::read(command.folder() / "two.tar.zst"));
  CHECK(command.run("cache export part.tar.zst --arch sm_90 --json").json().at("entries") == 3);
  CHECK(command.run("cache import one.tar.zst --cache third --json").json().at("entries") == 6);
  CHECK(entries_in(command.folder() / "third") == 6);
  REQUIRE(command.run("cache export three.tar.zst --cache third").status == 0);
  CHECK(CommandLine::read(command.folder() / "one.tar.zst") == CommandLine::read(command.folder() / "three.tar.zst"));
}

TEST_CASE("a bundle that was altered anywhere, cut off, or wrongly signed publishes nothing") {
  const CommandLine command;
  make_keys(command, "key");
  make_keys(command, "foreign");
  for (int number = 0; number < 3; ++number)
    publish_numbered(command.folder() / "cache", number);
  REQUIRE(command.run("cache export plain.tar.zst").status == 0);
  REQUIRE(command.run("cache export signed.tar.zst --sign key.pem").status == 0);
  const auto import = [&](const std::string& rest) { return command.run("cache import --cache new " + rest); };
  check_error(import("plain.tar.zst --public-key key.pub"), 1, "cache_corrupt", "not signed");
  check_error(import("signed.tar.zst --public-key foreign.pub"), 1, "cache_corrupt", "not signed");
  check_error(import("missing.tar.zst"), 1, "cache_corrupt", "missing.tar.zst");
  CHECK(entries_in(command.folder() / "new") == 0);

  const std::string whole = CommandLine::read(command.folder() / "signed.tar.zst");
  std::size_t undetected = 0;
  const auto path = command.folder() / "bad.tar.zst";
  const auto original = read_bundle(command.folder() / "signed.tar.zst", command.folder() / "key.pub");
  const auto try_bytes = [&](const std::string& bytes) {
    write(path, bytes);
    try { // a byte that no content depends on, such as a frame's flag, may change: then the files are the same
      undetected += read_bundle(path, command.folder() / "key.pub") == original ? 0U : 1U;
    } catch (const Error& error) {
      CHECK(error.code() == ErrorCode::cache_corrupt);
    }
  };
  for (std::size_t offset = 0; offset < whole.size(); ++offset) {
    std::string altered = whole;
    altered[offset] = static_cast<char>(altered[offset] ^ 0x41);
    try_bytes(altered);
    if (offset % 7 == 0)
      try_bytes(whole.substr(0, offset));
  }
  CHECK(undetected == 0);

  std::vector<NamedFile> files = original; // sound digests over a file that is no entry
  files.front().second[100] = static_cast<char>(files.front().second[100] ^ 1);
  write(path, make_bundle(files, command.folder() / "key.pem"));
  check_error(import("bad.tar.zst --public-key key.pub"), 1, "cache_corrupt", "no entry of that name");
  files = original;
  files.front().first = "../../escape";
  write(path, make_bundle(files, command.folder() / "key.pem"));
  check_error(import("bad.tar.zst --public-key key.pub"), 1, "cache_corrupt", "escape");
  CHECK(entries_in(command.folder() / "new") == 0);
  CHECK(import("signed.tar.zst --public-key key.pub").status == 0);
  CHECK(entries_in(command.folder() / "new") == 3);
}

TEST_CASE("a cold container: without libnvrtc, a bundle makes the first launch possible with jit=forbid") {
  const CommandLine command;
  const std::string problem = "attention_forward:pattern=dense,dtype=bf16,head_dim=64,layout=raster";
  const std::string bench = "bench " + problem + " --tokens 64 --heads 1 --rounds 1 --warm-up 0 --device cuda --json";
  const std::string cold =
      fmt::format("TILEWRIGHT_LIBCUDA='{}' TILEWRIGHT_NVRTC=/nowhere TILEWRIGHT_CACHE='{}' TILEWRIGHT_JIT=forbid",
                  TILEWRIGHT_FAKE_LIBCUDA, (command.folder() / "container").string());
  check_error(command.run(bench, cold), 1, "jit_forbidden", "tilewright compile");
  if (const auto built = command.run("compile " + problem + ",edges=full --arch sm_90"); built.status != 0) {
    MESSAGE("SKIP: no NVRTC here: " << built.error);
    return;
  }
  REQUIRE(command.run("cache export bundle.tar.zst").status == 0);
  REQUIRE(command.run("cache import bundle.tar.zst", cold).status == 0);
  const CommandResult warm = command.run(bench, cold); // the fake driver loads and launches, and computes nothing
  CAPTURE(warm.error);
  REQUIRE(warm.status == 0);
  CHECK(warm.json().at("cache") == "hit");
  CHECK(warm.json().at("device").get<std::string>().find("Fake H100") == 0);
}

TEST_CASE("a cold container, for real: a root folder with the command, its libraries, a driver and a bundle") {
  const CommandLine command;
  if (::geteuid() != 0) {
    MESSAGE("SKIPPED: only root can change the root folder");
    return;
  }
  const std::string problem = "attention_forward:pattern=dense,dtype=bf16,head_dim=64,layout=raster";
  if (const auto built = command.run("compile " + problem + ",edges=full --arch sm_90"); built.status != 0) {
    MESSAGE("SKIP: no NVRTC here: " << built.error);
    return;
  }
  make_keys(command, "key");
  REQUIRE(command.run("cache export bundle.tar.zst --sign key.pem").status == 0);
  const auto shell = [&](const std::string& script) {
    return std::system(fmt::format("cd '{}' && {}", command.folder().string(), script).c_str());
  };
  REQUIRE(shell(fmt::format("mkdir -p root/tmp && for file in '{}' '{}'; do for part in $file $(ldd $file | grep -o "
                            "'/[^ ]*'); do mkdir -p root/$(dirname $part) && cp -L $part root/$part; done; done && "
                            "cp bundle.tar.zst key.pub root/",
                            TILEWRIGHT_COMMAND, TILEWRIGHT_FAKE_LIBCUDA)) == 0);
  for (const auto& file : std::filesystem::recursive_directory_iterator(command.folder() / "root"))
    REQUIRE(file.path().filename().string().find("nvrtc") == std::string::npos);
  const auto inside = [&](const std::string& words) {
    return shell(fmt::format(
        "env -i PATH=$PATH:/usr/sbin TILEWRIGHT_LIBCUDA='{}' TILEWRIGHT_CACHE=/cache TILEWRIGHT_JIT=forbid chroot root "
        "'{}' {} > container.out 2> container.error",
        TILEWRIGHT_FAKE_LIBCUDA, TILEWRIGHT_COMMAND, words));
  };
  const std::string launch = "bench " + problem + " --tokens 64 --heads 1 --rounds 1 --warm-up 0 --device cuda --json";
  CHECK(inside(launch) != 0);
  CHECK(CommandLine::read(command.folder() / "container.error").find("jit_forbidden") != std::string::npos);
  const int imported = inside("cache import /bundle.tar.zst --public-key /key.pub");
  CAPTURE(CommandLine::read(command.folder() / "container.error"));
  REQUIRE(imported == 0);
  REQUIRE(inside(launch) == 0);
  CHECK(nlohmann::json::parse(CommandLine::read(command.folder() / "container.out")).at("cache") == "hit");
}
