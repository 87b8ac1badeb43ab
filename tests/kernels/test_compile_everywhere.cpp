// Every default kernel of the generic family compiles without spills and within its shared memory.
#include <algorithm>
#include <cstdlib>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "codegen/source.hpp"
#include "compiler/nvrtc.hpp"
#include "kernels/problems.hpp"
#include "schedule/feasibility.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

namespace {

/// Compiles all problems' default kernels; reports each that fails, and the median time.
void compile_all(const char* architecture, Family family) {
  if (!compiler::identity()) {
    MESSAGE("SKIP: no NVRTC on this machine, so nothing was compiled for ", architecture);
    return;
  }
  const Architecture gpu = parse_architecture(architecture);
  std::vector<double> milliseconds;
  for (const Problem& problem : testing::all_closed_problems()) {
    const Spec spec = schedule::default_spec(problem, gpu, family);
    const std::string name = to_string(spec);
    CAPTURE(name);
    const auto limits = schedule::limits_of(gpu);
    REQUIRE(limits);
    CHECK(schedule::shared_memory_bytes(problem, spec.schedule) <= limits->shared_per_block);
    try {
      const auto compiled = compiler::compile(codegen::generate(spec), spec.architecture);
      CHECK(compiled.report.spill_bytes == 0);
      CHECK(compiled.report.registers > 0);
      CHECK(!compiled.cubin.empty());
      milliseconds.push_back(compiled.milliseconds);
    } catch (const Error& error) {
      if (error.code() == ErrorCode::unsupported && error.problem().find("architecture") != std::string::npos) {
        MESSAGE("SKIP: ", std::string(error.what()));
        return;
      }
      FAIL_CHECK(std::string(error.what()));
    }
  }
  REQUIRE(!milliseconds.empty());
  std::sort(milliseconds.begin(), milliseconds.end());
  MESSAGE(fmt::format("{}: {} kernels, median {:.0f} ms, slowest {:.0f} ms", architecture, milliseconds.size(),
                      milliseconds[milliseconds.size() / 2], milliseconds.back()));
}

} // namespace

TEST_CASE("default kernels compile: sm_80") { compile_all("sm_80", Family::sm80); }
TEST_CASE("default kernels compile: sm_90") { compile_all("sm_90", Family::sm80); }
