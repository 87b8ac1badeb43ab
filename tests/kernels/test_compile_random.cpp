// The default kernels of random problems compile without spills: tiles, windows and edges that no list has thought of.
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "codegen/source.hpp"
#include "compiler/nvrtc.hpp"
#include "schedule/heuristic.hpp"
#include "support_environment.hpp"
#include "support_random_problem.hpp"

using namespace tilewright;

namespace {

/// Forward and backward kernels of random problems, each kernel once: TILEWRIGHT_COMPILE_PROBLEMS of them, from
/// TILEWRIGHT_COMPILE_SEED on. compiler::compile refuses spills, and what ptxas
/// warns of.
void compile_random(const Architecture& gpu, Family family) {
  if (!compiler::identity()) {
    MESSAGE("SKIP: no NVRTC on this machine, so nothing was compiled");
    return;
  }
  const std::uint64_t first = testing::number_in_environment("TILEWRIGHT_COMPILE_SEED", 0),
                      count = testing::number_in_environment("TILEWRIGHT_COMPILE_PROBLEMS", 3);
  std::set<std::string> compiled;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    const Problem forward = testing::RandomProblem(seed).problem();
    std::vector<Problem> kernels = backward_steps(forward);
    kernels.push_back(forward);
    for (const Problem& problem : kernels) {
      const Spec spec = schedule::default_spec(problem, gpu, family);
      const std::string name = to_string(spec);
      if (!compiled.insert(name).second)
        continue;
      try {
        CHECK(!compiler::compile(codegen::generate(spec), spec.architecture).cubin.empty());
      } catch (const Error& error) {
        FAIL_CHECK("seed " << seed << ", " << name << ": " << std::string(error.what()));
      }
    }
  }
  REQUIRE(!compiled.empty());
  MESSAGE(to_string(gpu) << ": " << compiled.size() << " kernels of " << count << " random problems");
}

} // namespace

TEST_CASE("random problems' default kernels compile: sm_80") { compile_random({8, 0, 0}, Family::sm80); }
TEST_CASE("random problems' default kernels compile: sm_90a") { compile_random({9, 0, 0}, Family::automatic); }
TEST_CASE("random problems' default kernels compile: sm_120") { compile_random({12, 0, 0}, Family::sm80); }
