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

/// fp16 kernels differ from bf16 ones in the matrix instruction's type alone: they are compiled where the machine code
/// differs most (sm_80, sm_90, sm_120), which halves the time of the others.
enum class Types { all, bf16 };

/// Compiles all problems' default kernels; reports each that fails, and the median time.
void compile_all(const char* architecture, Family family, Types types = Types::all,
                 const std::vector<Problem>& problems = testing::all_closed_problems()) {
  if (!compiler::identity()) {
    MESSAGE("SKIP: no NVRTC on this machine, so nothing was compiled for ", architecture);
    return;
  }
  const Architecture gpu = parse_architecture(architecture);
  std::vector<double> milliseconds;
  for (const Problem& problem : problems) {
    if (types == Types::bf16 && problem.dtype != DataType::bf16)
      continue;
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

/// The backward kernels of every pattern and layout, where edges are not full: those forms need the most registers.
/// (The row statistics' kernel is the same for all families and needs few: once.)
std::vector<Problem> backward_problems(std::int32_t head_dim, bool with_statistics = false) {
  std::vector<Problem> problems;
  for (const Problem& forward : testing::all_closed_problems())
    if (forward.head_dim == head_dim && forward.edges != Edges::full)
      for (const Problem& step : backward_steps(forward))
        if (with_statistics || step.op != Operator::attention_backward_delta)
          problems.push_back(step);
  return problems;
}

} // namespace

TEST_CASE("default kernels compile: sm_80") { compile_all("sm_80", Family::sm80); }
TEST_CASE("default kernels compile: sm_86") { compile_all("sm_86", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_87") { compile_all("sm_87", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_88") { compile_all("sm_88", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_89") { compile_all("sm_89", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_90") { compile_all("sm_90", Family::sm80); }
TEST_CASE("default kernels compile: sm_100") { compile_all("sm_100", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_103") { compile_all("sm_103", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_110") { compile_all("sm_110", Family::sm80, Types::bf16); }
TEST_CASE("default kernels compile: sm_120") { compile_all("sm_120", Family::sm80); }
TEST_CASE("default kernels compile: sm_121") { compile_all("sm_121", Family::sm80, Types::bf16); }

TEST_CASE("video sparse attention's default kernels compile: sm_80") {
  compile_all("sm_80", Family::sm80, Types::all, testing::video_sparse_problems());
}
TEST_CASE("video sparse attention's default kernels compile: sm_90a") {
  compile_all("sm_90a", Family::automatic, Types::all, testing::video_sparse_problems());
}
TEST_CASE("video sparse attention's default kernels compile: sm_120") {
  compile_all("sm_120", Family::sm80, Types::bf16, testing::video_sparse_problems());
}

TEST_CASE("video sparse attention's gradient kernels compile: sm_80") {
  for (const char* architecture : {"sm_80", "sm_86", "sm_87", "sm_88", "sm_89"})
    compile_all(architecture, Family::sm80, Types::all, testing::video_sparse_gradient_problems());
}
TEST_CASE("video sparse attention's gradient kernels compile: sm_90") {
  for (const char* architecture : {"sm_90", "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"})
    compile_all(architecture, Family::automatic, Types::all, testing::video_sparse_gradient_problems());
}

// At head_dim 128 a kernel's own rows and gradients fill 255 registers; each generation of GPUs has another compiler
// back end, and those with 100 KiB of shared memory have other schedules. (The sm90 family:
// tests/compiler/test_hopper.cpp.)
TEST_CASE("default backward kernels compile: sm_80") {
  compile_all("sm_80", Family::sm80, Types::all, backward_problems(128, true));
  compile_all("sm_80", Family::sm80, Types::bf16, backward_problems(64));
}
TEST_CASE("default backward kernels compile: sm_86") {
  compile_all("sm_86", Family::sm80, Types::bf16, backward_problems(128));
}
TEST_CASE("default backward kernels compile: sm_90") {
  compile_all("sm_90", Family::sm80, Types::bf16, backward_problems(128));
}
TEST_CASE("default backward kernels compile: sm_100") {
  compile_all("sm_100", Family::sm80, Types::bf16, backward_problems(128));
}
TEST_CASE("default backward kernels compile: sm_103") {
  compile_all("sm_103", Family::sm80, Types::bf16, backward_problems(128));
}
TEST_CASE("default backward kernels compile: sm_110") {
  compile_all("sm_110", Family::sm80, Types::bf16, backward_problems(128));
}
TEST_CASE("default backward kernels compile: sm_120") {
  compile_all("sm_120", Family::sm80, Types::bf16, backward_problems(128));
}
