// The real NVRTC, where one is installed.
#include <doctest/doctest.h>

#include <cstdio>
#include <iostream>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "compiler/nvrtc.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

namespace {

bool nvrtc_missing() {
  const bool missing = !compiler::describe().problem.empty();
  if (missing)
    MESSAGE("SKIPPED: " << compiler::describe().problem);
  return missing;
}

codegen::GeneratedSource source(std::string body) { return {std::move(body), "probe"}; }

const codegen::GeneratedSource good = source(R"(
extern "C" __global__ void __launch_bounds__(128) probe(float* x) {
  __shared__ float row[100];
  row[threadIdx.x % 100] = x[threadIdx.x];
  __syncthreads();
  x[threadIdx.x] = row[(threadIdx.x + 1) % 100];
})");

std::string failure(const codegen::GeneratedSource& code, const Architecture& architecture, ErrorCode expected) {
  try {
    compiler::compile(code, architecture);
  } catch (const Error& error) {
    CHECK(error.code() == expected);
    return error.what();
  }
  FAIL("the source compiled");
  return {};
}

bool contains(std::string_view text, std::string_view part) { return text.find(part) != std::string_view::npos; }

} // namespace

TEST_CASE("a kernel compiles to a cubin with its report, and the same bytes each time") {
  if (nvrtc_missing())
    return;
  const auto kernel = compiler::compile(good, {8, 0, 0});
  REQUIRE(kernel.cubin.size() > 4);
  CHECK(std::string(reinterpret_cast<const char*>(kernel.cubin.data()), 4) == "\x7f"
                                                                              "ELF");
  CHECK(kernel.report.registers > 0);
  CHECK(kernel.report.static_shared_bytes == 100 * sizeof(float));
  CHECK(kernel.report.spill_bytes == 0);
  CHECK(kernel.milliseconds > 0);
  CHECK(contains(kernel.log, "'probe' for 'sm_80'"));
  CHECK(compiler::compile(good, {8, 0, 0}).cubin == kernel.cubin);
}

TEST_CASE("the identity is that of the library which compiles") {
  if (nvrtc_missing())
    return;
  const auto description = compiler::describe();
  CHECK(compiler::identity() == "build-id " + description.build_id);
  const auto kernel = compiler::compile(good, {9, 0, 'a'});
  CHECK(kernel.compiler_identity == compiler::identity());
  CHECK(kernel.compiler_version == description.version);
}

TEST_CASE("a source that does not compile is reported with the template's file and line") {
  if (nvrtc_missing())
    return;
  const auto bad = source("#line 7 \"templates/kernels/probe.cu\"\n"
                          "extern \"C\" __global__ void probe(int* p) { *p = nothing; }\n");
  const std::string message = failure(bad, {8, 0, 0}, ErrorCode::compile_failed);
  CHECK(contains(message, "templates/kernels/probe.cu(7)"));
  CHECK(contains(message, "nothing"));
}

TEST_CASE("an instruction that the architecture does not have is a failed compile") {
  if (nvrtc_missing())
    return;
  const auto bad = source(R"(extern "C" __global__ void probe() { asm volatile("wgmma.fence.sync.aligned;"); })");
  CHECK(contains(failure(bad, {8, 0, 0}, ErrorCode::compile_failed), "wgmma.fence"));
  CHECK_NOTHROW(compiler::compile(bad, {9, 0, 'a'}));
}

TEST_CASE("register spills are a failed compile") {
  if (nvrtc_missing())
    return;
  const auto spilling = source(R"(
extern "C" __global__ void __launch_bounds__(1024, 2) probe(float* x, int n) {
  float a[128];
#pragma unroll
  for (int i = 0; i < 128; i++) a[i] = x[i * n + threadIdx.x];
  __syncthreads();
  for (int j = 0; j < n; j++) {
#pragma unroll
    for (int i = 0; i < 128; i++) a[i] = a[i] * a[(i * 7 + 3) & 127] + x[j];
  }
#pragma unroll
  for (int i = 0; i < 128; i++) x[i * n + threadIdx.x] = a[i];
})");
  CHECK(contains(failure(spilling, {8, 0, 0}, ErrorCode::compile_failed), "it spills registers"));
}

TEST_CASE("warnings of ptxas about warpgroup products are a failed compile that says what they mean") {
  if (nvrtc_missing())
    return;
  const auto slow = source(R"(
extern "C" __global__ void probe(float* x) {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 24;");
  *x = 1;
})");
  const std::string message = failure(slow, {9, 0, 'a'}, ErrorCode::compile_failed);
  CHECK(contains(message, "C7508"));
  CHECK(contains(message, "launch_bounds"));
}

TEST_CASE("an architecture that NVRTC does not know is unsupported") {
  if (nvrtc_missing())
    return;
  CHECK(contains(failure(good, {20, 0, 0}, ErrorCode::unsupported), "sm_200"));
}

TEST_CASE("threads compile at the same time") {
  if (nvrtc_missing())
    return;
  std::vector<std::vector<std::byte>> cubins(4);
  {
    std::vector<std::jthread> threads;
    for (auto& cubin : cubins)
      threads.emplace_back([&cubin] { cubin = compiler::compile(good, {8, 6, 0}).cubin; });
  }
  for (const auto& cubin : cubins)
    CHECK(cubin == compiler::compile(good, {8, 6, 0}).cubin);
}

TEST_CASE("a child that was forked during a compile can compile") {
  if (nvrtc_missing())
    return;
  std::jthread busy([] { compiler::compile(good, {8, 9, 0}); });
  const ::pid_t child = ::fork();
  if (child == 0) {
    ::alarm(30); // a hang must fail, not stop the suite
    int status = 1;
    try {
      status = compiler::compile(good, {8, 0, 0}).cubin.empty() ? 1 : 0;
    } catch (...) {
    }
    ::_exit(status);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("compiling writes nothing to standard output or standard error") {
  if (nvrtc_missing())
    return;
  std::cout.flush(); // what the parent has buffered is not the compiler's
  std::fflush(nullptr);
  const ::pid_t child = ::fork();
  if (child == 0) {
    std::FILE* const capture = std::tmpfile();
    ::dup2(::fileno(capture), STDOUT_FILENO);
    ::dup2(::fileno(capture), STDERR_FILENO);
    compiler::compile(good, {8, 0, 0});
    std::fflush(nullptr);
    ::_exit(::lseek(::fileno(capture), 0, SEEK_END) == 0 ? 0 : 1);
  }
  int status = -1;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
