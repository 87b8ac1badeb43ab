#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "compiler/architectures.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using compiler::Version;

namespace {

// What nvrtcGetSupportedArchs answers in each version, less those below sm_75.
const std::vector<int> known_12_4 = {75, 80, 86, 87, 89, 90};
const std::vector<int> known_12_8 = {75, 80, 86, 87, 89, 90, 100, 101, 120};
const std::vector<int> known_12_9 = {75, 80, 86, 87, 89, 90, 100, 101, 103, 120, 121};
const std::vector<int> known_13_0 = {75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121};

std::string refusal(const char* architecture, Version version, const std::vector<int>& known) {
  try {
    compiler::require_architecture(parse_architecture(architecture), version, known);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::unsupported);
    return error.what();
  }
  return "";
}

} // namespace

TEST_CASE("NVRTC 13.0 compiles for every architecture from sm_80 up") {
  for (const char* name : {"sm_80", "sm_86", "sm_87", "sm_88", "sm_89", "sm_90", "sm_90a", "sm_100", "sm_100a",
                           "sm_100f", "sm_103", "sm_110", "sm_120", "sm_120a", "sm_121"})
    CHECK_MESSAGE(refusal(name, {13, 0}, known_13_0).empty(), name);
}

TEST_CASE("the refusal names the version to install") {
  CHECK(refusal("sm_100", {12, 4}, known_12_4).find("NVRTC 12.8 or later") != std::string::npos);
  CHECK(refusal("sm_120a", {12, 4}, known_12_4).find("NVRTC 12.8 or later") != std::string::npos);
  CHECK(refusal("sm_103", {12, 8}, known_12_8).find("NVRTC 12.9 or later") != std::string::npos);
  CHECK(refusal("sm_121", {12, 8}, known_12_8).find("NVRTC 12.9 or later") != std::string::npos);
  CHECK(refusal("sm_110", {12, 9}, known_12_9).find("NVRTC 13.0 or later") != std::string::npos);
  CHECK(refusal("sm_88", {12, 9}, known_12_9).find("NVRTC 13.0 or later") != std::string::npos);
  CHECK(refusal("sm_101", {13, 0}, known_13_0).find("NVRTC 12.8 to 12.9") != std::string::npos);
  CHECK(refusal("sm_70", {13, 0}, known_13_0).find("NVRTC 12.4 to 12.9") != std::string::npos);
  CHECK(refusal("sm_100f", {12, 8}, known_12_8).find("NVRTC 12.9 or later") != std::string::npos);
}

TEST_CASE("suffixes that no version knows are refused") {
  CHECK(refusal("sm_80a", {13, 0}, known_13_0).find("no version") != std::string::npos);
  CHECK(refusal("sm_90f", {13, 0}, known_13_0).find("no version") != std::string::npos);
  CHECK(refusal("sm_95", {13, 0}, known_13_0).find("no version") != std::string::npos);
}

TEST_CASE("an architecture newer than the table is taken on NVRTC's word") {
  CHECK(refusal("sm_140", {14, 0}, {80, 90, 140}).empty());
}
