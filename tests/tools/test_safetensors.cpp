// .safetensors files: what is written reads back; what lies is refused; nothing crashes.
#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include <fmt/format.h>

#include "support_temporary_folder.hpp"
#include "tools/output_file.hpp"
#include "tools/safetensors.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::tools;

namespace {

std::span<const std::byte> bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

/// A file with this header, its true length in front, and data_bytes zeros behind.
std::string file_with_header(const std::string& header, std::size_t data_bytes) {
  const std::uint64_t length = header.size();
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  return file + header + std::string(data_bytes, '\0');
}

Safetensors sample() {
  Safetensors content;
  content.metadata = {{"source", "a \"quoted\" name"}};
  HostTensor values = make_poisoned(ElementType::f32, {2, 3});
  for (std::size_t i = 0; i < 6; ++i)
    values.as<float>()[i] = static_cast<float>(i) + 0.5F;
  content.tensors.emplace("values", std::move(values));
  content.tensors.emplace("empty", make_poisoned(ElementType::i64, {0, 7}));
  content.tensors.emplace("scalar", make_poisoned(ElementType::u8, {}));
  return content;
}

/// The refusal of a file with this header, or "accepted".
std::string refusal(const std::string& header, std::size_t data_bytes) {
  try {
    (void)parse_safetensors(bytes(file_with_header(header, data_bytes)), "test.safetensors");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(error.problem().find("test.safetensors") == 0);
    return error.problem();
  }
  return "accepted";
}

} // namespace

TEST_CASE("what is written reads back, aligned") {
  const std::string file = format_safetensors(sample());
  std::uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, file.data(), sizeof header_bytes);
  CHECK(header_bytes % 8 == 0);
  const Safetensors content = parse_safetensors(bytes(file), "memory");
  CHECK(content.metadata == sample().metadata);
  REQUIRE(content.tensors.size() == 3);
  CHECK(content.tensors.at("values").shape == std::vector<std::int64_t>{2, 3});
  CHECK(content.tensors.at("values").as<float>()[5] == 5.5F);
  CHECK(content.tensors.at("empty").bytes.empty());
  CHECK(content.tensors.at("scalar").bytes.size() == 1);
}

TEST_CASE("every truncation of a file is refused") {
  const std::string file = format_safetensors(sample());
  for (std::size_t length = 0; length < file.size(); ++length) {
    CAPTURE(length);
    CHECK_THROWS_AS((void)parse_safetensors(bytes(file).first(length), "cut"), Error);
  }
  CHECK_THROWS_AS((void)parse_safetensors(bytes(file + '\0'), "longer"), Error);
}

TEST_CASE("random damage is refused or read, never worse") {
  const std::string file = format_safetensors(sample());
  std::mt19937 random(1);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string damaged = file;
    for (unsigned flips = 1 + random() % 4; flips > 0; --flips)
      damaged[random() % damaged.size()] = static_cast<char>(random());
    try {
      const Safetensors content = parse_safetensors(bytes(damaged), "damaged");
      for (const auto& [name, tensor] : content.tensors) {
        std::int64_t volume = 1;
        for (const std::int64_t extent : tensor.shape)
          volume *= extent;
        CHECK(static_cast<std::size_t>(volume) * size_of(tensor.type) == tensor.bytes.size());
      }
    } catch (const Error& error) {
      ++refused;
      CHECK(error.code() == ErrorCode::invalid_argument);
    }
  }
  CHECK(refused > 10000); // most of the file is header
}

TEST_CASE("files that lie are refused with the offence") {
  const std::string good = R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  CHECK(refusal("{" + good + "}", 8) == "accepted");
  CHECK(refusal("{" + good + "}", 7).find("lies at 0 to 8 of 7 bytes") != std::string::npos);
  CHECK(refusal("{" + good + "}", 9).find("end at 8 of 9") != std::string::npos);
  CHECK(refusal("{" + good + "," + good + "}", 8).find("names 'a' twice") != std::string::npos);
  CHECK(refusal("[1]", 0).find("no JSON object") != std::string::npos);
  CHECK(refusal("{" + good, 8).find("no JSON object") != std::string::npos);
  CHECK(refusal(std::string(100000, '['), 0).find("no JSON object") != std::string::npos);
  CHECK(refusal("\xff\xfe", 0).find("no JSON object") != std::string::npos);
  CHECK(refusal(R"({"a":7})", 0).find("'a' is no JSON object") != std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F8","shape":[2],"data_offsets":[0,8]}})", 8).find("F8") != std::string::npos);
  CHECK(refusal(R"({"a":{"shape":[2],"data_offsets":[0,8]}})", 8).find("dtype of none") != std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","data_offsets":[0,8]}})", 8).find("no shape") != std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8).find("no shape") != std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}})", 8).find("no shape") !=
        std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0]}})", 8).find("no data_offsets") !=
        std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8).find("lies at 8 to 0") !=
        std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}})", 8).find("needs 12") != std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}})", 0).find("overflows") !=
        std::string::npos);
  CHECK(refusal(R"({"a":{"dtype":"F32","shape":[18446744073709551615],"data_offsets":[0,0]}})", 0).find("overflows") !=
        std::string::npos);
  const std::string overlapping = R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]})";
  CHECK(refusal("{" + good + "," + overlapping + "}", 12).find("'b' begins at 4") != std::string::npos);
  const std::string after_gap = R"("b":{"dtype":"F32","shape":[2],"data_offsets":[12,20]})";
  CHECK(refusal("{" + good + "," + after_gap + "}", 20).find("'b' begins at 12") != std::string::npos);
  CHECK(refusal(R"({"__metadata__":{"a":1}})", 0).find("metadata 'a'") != std::string::npos);
}

TEST_CASE("header lengths that lie are refused before anything is read") {
  for (const std::uint64_t length : {std::uint64_t{9}, std::uint64_t{100'000'001}, ~std::uint64_t{0}}) {
    std::string file(16, '{');
    std::memcpy(file.data(), &length, sizeof length);
    CHECK_THROWS_AS((void)parse_safetensors(bytes(file), "lying"), Error);
  }
}

TEST_CASE("files are written whole, and their paths are checked first") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "out.safetensors";
  write_safetensors(path, sample());
  CHECK(read_safetensors(path).tensors.size() == 3);
  CHECK(std::distance(std::filesystem::directory_iterator(folder.path()), {}) == 1); // no temporary file is left

  CHECK_THROWS_AS(check_output(folder.path() / "missing" / "out", "--output"), Error);
  CHECK_THROWS_AS(check_output(folder.path(), "--output"), Error);
  CHECK_THROWS_AS(check_output("", "--output"), Error);
  CHECK_THROWS_AS((void)read_safetensors(folder.path() / "missing"), Error);
}

TEST_CASE("what is no regular file is written to, not replaced") {
  write_output("/dev/null", std::string_view("gone"));
  CHECK(std::filesystem::is_character_file("/dev/null"));
}
