// Every default schedule of the sm90 family compiles for sm_90a: compiler::compile refuses spills and the warnings
// C7508 to C7520, each of which means a kernel several times slower.
#include <doctest/doctest.h>

#include <fstream>
#include <sstream>
#include <string>

#include "../benchmarks/hopper/receiving_source.hpp"
#include "codegen/source.hpp"
#include "compiler/nvrtc.hpp"
#include "schedule/heuristic.hpp"
#include "support_environment.hpp"

using namespace tilewright;

namespace {

bool nvrtc_missing() {
  const bool missing = !compiler::describe().problem.empty();
  if (missing)
    MESSAGE("SKIPPED: " << compiler::describe().problem);
  return missing;
}

void compile(const Spec& spec) {
  CAPTURE(to_string(spec));
  CHECK(spec.architecture == Architecture{9, 0, 'a'});
  compiler::CompiledKernel kernel;
  CHECK_NOTHROW(kernel = compiler::compile(codegen::generate(spec), spec.architecture));
  CHECK(kernel.report.spill_bytes == 0);
  CHECK(kernel.report.stack_bytes == 0);
}

const Architecture hopper{9, 0, 0};
const std::string patterns[] = {
    "pattern=sliding_tile,tile=6x8x8", "pattern=sliding_tile,tile=4x4x4", "pattern=dense",
    "pattern=block_list,tile=4x4x4",   "pattern=block_list,tile=2x8x8",   "pattern=block_list,tile=4x8x8"};

} // namespace

TEST_CASE("default sm90 schedules compile without spills") {
  if (nvrtc_missing())
    return;
  for (const std::string& pattern : patterns)
    for (const char* rest : {"", ",layout=tiled", ",head_dim=64,dtype=fp16"})
      for (const Problem& problem : closed_variants(parse_problem("attention_forward:" + pattern + rest)))
        compile(schedule::default_spec(problem, hopper, Family::sm90));
}

TEST_CASE("the kernel's other schedules compile without spills where they fit") {
  if (nvrtc_missing())
    return;
  for (const char* line : {"pattern=sliding_tile,tile=6x8x8,text=1,edges=clipped", "pattern=block_list,edges=full"}) {
    const Problem problem = parse_problem(std::string("attention_forward:") + line);
    for (const schedule::Candidate& candidate : schedule::candidates(problem, hopper, Family::sm90))
      if (candidate.refusals.empty() && candidate.schedule.overlap == (candidate.schedule.block_q > 64))
        compile(schedule::insisted_spec(problem, hopper, candidate.schedule));
  }
}

TEST_CASE("every backward schedule of the sm90 family compiles without spills") {
  if (nvrtc_missing())
    return;
  for (const char* op : {"attention_backward_key:", "attention_backward_query:"}) {
    for (const char* pattern : {"pattern=sliding_tile,tile=6x8x8", "pattern=dense", "pattern=block_list,tile=4x4x4"})
      for (const char* rest : {"", ",layout=tiled", ",head_dim=64,dtype=fp16"})
        for (const Problem& problem : closed_variants(parse_problem(std::string(op) + pattern + rest)))
          compile(schedule::default_spec(problem, hopper, Family::sm90));
    for (const char* line : {"pattern=sliding_tile,tile=6x8x8,text=1,edges=clipped", "pattern=block_list,edges=full"}) {
      const Problem problem = parse_problem(std::string(op) + line);
      for (const schedule::Candidate& candidate : schedule::candidates(problem, hopper, Family::sm90))
        if (candidate.refusals.empty())
          compile(schedule::insisted_spec(problem, hopper, candidate.schedule));
    }
  }
}

TEST_CASE("the benchmark's load-only kernel follows the forward kernel") {
  if (nvrtc_missing())
    return;
  std::ifstream file(testing::source_folder() + "/benchmarks/hopper/receive_only.cuh");
  std::ostringstream text;
  text << file.rdbuf();
  REQUIRE(text.str().find("receive(") != std::string::npos); // run in the source folder, or set TILEWRIGHT_SOURCE_DIR
  for (const char* line : {"pattern=block_list,tile=4x4x4,edges=full", "pattern=dense"}) {
    const Problem problem = closed_variants(parse_problem(std::string("attention_forward:") + line)).front();
    const Spec spec = schedule::default_spec(problem, hopper, Family::sm90);
    CHECK_NOTHROW(compiler::compile(benchmarks::receiving_source(spec, text.str()), spec.architecture));
  }
}
