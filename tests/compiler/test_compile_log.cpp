#include <doctest/doctest.h>

#include <string>

#include "compiler/compile_log.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

namespace {

constexpr Architecture hopper{9, 0, 'a'};

std::string log_with(const std::string& lines, int stores = 0, int loads = 0) {
  return lines +
         "ptxas info    : 0 bytes gmem\n"
         "ptxas info    : Compiling entry function 'probe' for 'sm_90a'\n"
         "ptxas info    : Function properties for probe\n"
         "ptxas         .     16 bytes stack frame, " +
         std::to_string(stores) + " bytes spill stores, " + std::to_string(loads) +
         " bytes spill loads\n"
         "ptxas info    : Used 168 registers, used 1 barriers, 400 bytes smem, 360 bytes cmem[0]\n"
         "ptxas info    : Compile time = 20.167 ms\n";
}

std::string refusal(const std::string& log) {
  try {
    compiler::read_compile_log(log, "probe", hopper);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::compile_failed);
    return error.what();
  }
  FAIL("the log was accepted");
  return {};
}

} // namespace

TEST_CASE("resource usage is read from the log") {
  const KernelReport report = compiler::read_compile_log(log_with(""), "probe", hopper);
  CHECK(report.registers == 168);
  CHECK(report.stack_bytes == 16);
  CHECK(report.static_shared_bytes == 400);
  CHECK(report.spill_bytes == 0);
}

TEST_CASE("NVRTC 12.4's shorter line is read too") {
  const KernelReport report =
      compiler::read_compile_log("ptxas info    : Compiling entry function 'probe' for 'sm_90a'\n"
                                 "ptxas info    : Used 80 registers, 1234 bytes smem\n",
                                 "probe", hopper);
  CHECK(report.registers == 80);
  CHECK(report.static_shared_bytes == 1234);
}

TEST_CASE("spill stores alone or loads alone are refused") {
  CHECK(refusal(log_with("", 8, 0)).find("8 bytes") != std::string::npos);
  CHECK(refusal(log_with("", 0, 12)).find("12 bytes") != std::string::npos);
}

TEST_CASE("each performance warning from C7508 to C7520 is refused by name, its neighbours are not") {
  for (int warning = 7508; warning <= 7520; ++warning) {
    const std::string name = "C" + std::to_string(warning);
    CHECK(refusal(log_with("ptxas info    : (" + name + ") Potential Performance Loss\n")).find(name) !=
          std::string::npos);
  }
  for (const char* other : {"C7507", "C7521", "C75200", "C751"})
    CHECK_NOTHROW(
        compiler::read_compile_log(log_with(std::string("ptxas info    : (") + other + ") text\n"), "probe", hopper));
}

TEST_CASE("a log about another kernel or another architecture is not accepted") {
  CHECK_THROWS_AS(compiler::read_compile_log(log_with(""), "other", hopper), Error);
  CHECK_THROWS_AS(compiler::read_compile_log(log_with(""), "probe", Architecture{9, 0, 0}), Error);
  CHECK_THROWS_AS(compiler::read_compile_log("", "probe", hopper), Error);
}
