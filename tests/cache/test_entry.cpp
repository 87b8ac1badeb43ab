#include <doctest/doctest.h>

#include <string>

#include "cache/entry.hpp"
#include "cache/fixture.hpp"
#include "cache/key.hpp"

using namespace tilewright;
using namespace tilewright::cache;

namespace {

CacheEntry example() {
  CacheEntry entry;
  entry.key = {0x0123456789abcdef, 0xfedcba9876543210};
  entry.spec = "attention_forward:pattern=dense@sm_90a/family=sm90";
  entry.kernel_name = "attention_forward_sm90";
  entry.compiler_identity = "build-id 65be";
  entry.compiler_version = "13.0";
  entry.log = "ptxas info\nanother line";
  entry.report = {.registers = 168, .spill_bytes = 1, .stack_bytes = 2, .static_shared_bytes = 3};
  entry.compile_milliseconds = 312.5;
  entry.cubin = test::expected_cubin(test::spec_number(64), "x", 600);
  return entry;
}

} // namespace

TEST_CASE("an entry comes back from its file as it was") {
  const CacheEntry entry = example();
  const Decoded decoded = decode(encode(entry));
  REQUIRE(decoded.state == Decoding::good);
  CHECK(decoded.entry.key == entry.key);
  CHECK(decoded.entry.spec == entry.spec);
  CHECK(decoded.entry.kernel_name == entry.kernel_name);
  CHECK(decoded.entry.compiler_identity == entry.compiler_identity);
  CHECK(decoded.entry.compiler_version == entry.compiler_version);
  CHECK(decoded.entry.log == entry.log);
  CHECK(decoded.entry.report.registers == 168);
  CHECK(decoded.entry.report.spill_bytes == 1);
  CHECK(decoded.entry.report.stack_bytes == 2);
  CHECK(decoded.entry.report.static_shared_bytes == 3);
  CHECK(decoded.entry.compile_milliseconds == 312.5);
  CHECK(decoded.entry.cubin == entry.cubin);
  CHECK(decoded.entry.origin == KernelOrigin::disk);
}

TEST_CASE("every change of every single byte is detected") {
  const std::string file = encode(example());
  std::size_t undetected = 0;
  for (std::size_t position = 0; position < file.size(); ++position)
    for (int change = 1; change < 256; ++change) {
      std::string altered = file;
      altered[position] = static_cast<char>(altered[position] ^ change);
      undetected += decode(altered).state == Decoding::good ? 1 : 0;
    }
  CHECK(undetected == 0);
}

TEST_CASE("every truncation and every extension is detected") {
  const std::string file = encode(example());
  std::size_t undetected = 0;
  for (std::size_t size = 0; size < file.size(); ++size)
    undetected += decode(std::string_view(file).substr(0, size)).state == Decoding::corrupt ? 0 : 1;
  CHECK(undetected == 0);
  CHECK(decode(file + '\0').state == Decoding::corrupt);
  CHECK(decode(file + file).state == Decoding::corrupt);
}

TEST_CASE("another format version is told from damage") {
  std::string file = encode(example());
  constexpr std::size_t version_position = 8;
  file[version_position] = 0;
  CHECK(decode(file).state == Decoding::other_version);
}

TEST_CASE("the key depends on source, kernel and the exact architecture, and is the same on every host") {
  const codegen::GeneratedSource source{.text = "text", .kernel_name = "name"};
  const auto key = request_key(source, {9, 0, 'a'});
  CHECK(request_key(source, {9, 0, 'a'}) == key);
  CHECK(request_key(source, {9, 0, 0}) != key);
  CHECK(request_key(source, {10, 0, 'a'}) != key);
  CHECK(request_key({.text = "text ", .kernel_name = "name"}, {9, 0, 'a'}) != key);
  CHECK(request_key({.text = "textn", .kernel_name = "ame"}, {9, 0, 'a'}) != key);
  // Written down once: another value means that every cache in the field turns cold.
  CHECK(to_string(key) == "24e02a2476133055fc585e0db20ee36f");
}
