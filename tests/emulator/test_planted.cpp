// Classic synchronisation bugs, planted in the generated kernels: each is found within a few seeds, and named: half of
// the seeds run with the race detector, half without it, so that a wrong result, a deadlock or a fault must show it
// too.
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include "emulator/whole_kernel.hpp"

namespace tilewright::testing {
namespace {

constexpr std::uint64_t seeds = 8;
constexpr std::string_view race = "a race with";

struct Bug {
  const char* name;
  std::vector<Replacement> replacements;
  std::string_view complaint; // part of what is said
  std::string_view schedule = "block_q=128,block_k=64,stages=8,blocks_per_processor=1,consumers=2,"
                              "consumer_registers=232,producer_registers=40,cluster=1,overlap=1,softmax=online";
};

Spec spec_of(const RandomProblem& problem, Family family, std::string_view schedule) {
  const std::string text = (family == Family::sm90 ? "family=sm90," : "family=sm80,") + std::string(schedule);
  return schedule::insisted_spec(problem.problem(), {9, 0, 0}, parse_schedule(text));
}

/// What the planted bug leads to under the first seeds; and the kernel without it is right under the same.
void check_found(RandomProblem& problem, Family family, const Bug& bug) {
  CAPTURE(bug.name);
  const Spec spec = spec_of(problem, family, bug.schedule);
  const WholeKernel right(spec), wrong(spec, bug.replacements);
  EmulatorOptions options = test_options();
  bool found = false, named = false;
  std::string said;
  for (options.seed = 0; options.seed < seeds; ++options.seed) {
    options.check_races = true;
    CHECK(right.complaint(problem, options) == "");
    options.check_races = options.seed % 2 == 0; // without it a wrong result or a deadlock may show the bug
    const std::string complaint = wrong.complaint(problem, options);
    found = found || !complaint.empty();
    named = named || complaint.find(bug.complaint) != std::string::npos;
    said += complaint.substr(0, 400) + "\n";
  }
  CAPTURE(said);
  CHECK(found);
  CHECK(named);
}

RandomLimits small() {
  RandomLimits limits;
  limits.dtype = DataType::bf16;
  limits.head_dim = 64;
  limits.max_flops = 3e6;
  limits.any_strides = false;
  return limits;
}

TEST_CASE("ten classic bugs in the Hopper kernel are found") {
  RandomLimits limits = small();
  limits.pattern = PatternKind::dense;
  RandomProblem problem = find_problem(limits, {"layout=raster", "edges=full"}, [](RandomProblem& candidate) {
    return candidate.call().q.extents[1] >= 200 && candidate.call().k.extents[1] >= 640;
  });
  const std::string_view cluster = "block_q=128,block_k=64,stages=8,blocks_per_processor=1,consumers=2,"
                                   "consumer_registers=232,producer_registers=40,cluster=2,overlap=1,softmax=online";
  const std::string_view few_stages = "block_q=64,block_k=64,stages=3,blocks_per_processor=2,consumers=1,"
                                      "consumer_registers=208,producer_registers=40,cluster=1,softmax=online";
  const std::vector<Bug> bugs{
      {"early release",
       {{"      stages.release_keys(next);\n      if constexpr (config::overlap) {",
         "      if constexpr (config::overlap) {"},
        {"        issue_scores(next);\n        wait_for_products<0>();\n",
         "        issue_scores(next);\n        stages.release_keys(next);\n        wait_for_products<0>();\n"}},
       race,
       few_stages},
      {"missing proxy fence",
       {{"  fence_shared_for_copies();\n  synchronize_consumer(consumer);\n  if (thread == 0) {",
         "  synchronize_consumer(consumer);\n  if (thread == 0) {"}},
       "has stored without a fence"},
      {"wrong phase", {{"    parity_ ^= 1;\n    return block();\n", "    return block();\n"}}, race},
      {"swapped stages",
       {{"multiply_query_key(scores, query, fragments, shared.key(taken.stage));",
         "multiply_query_key(scores, query, fragments, shared.key((taken.stage + 1) % config::stages));"}},
       race},
      {"missing expect bytes",
       {{"  arrive_expecting(barrier, KeyShared::bytes);", "  arrive(barrier);"}},
       "bytes more have been copied than were announced"},
      {"aliasing parity after a skipped stage",
       {{"  wait(shared.key_empty(ring.stage), ring.parity ^ 1);\n",
         "  if (ring.stage != 1) {\n    wait(shared.key_empty(ring.stage), ring.parity ^ 1);\n  }\n"}},
       race,
       few_stages},
      {"barrier count off by one",
       {{"initialize_barrier(key_empty(stage), releases_per_stage);",
         "initialize_barrier(key_empty(stage), releases_per_stage + 1);"}},
       "deadlock"},
      {"early epilogue store",
       {{"  fence_shared_for_copies();\n  synchronize_consumer(consumer);\n  if (thread == 0) {",
         "  fence_shared_for_copies();\n  if (thread == 0) {"}},
       "has stored without a fence"},
      {"missing cluster barrier at exit",
       {{"    synchronize_cluster(); // the others' releases arrive in this thread block's shared memory\n", ""}},
       "has ended",
       cluster},
      {"accumulator read before the wait",
       {{"        wait_for_products<1>();\n", "        wait_for_products<2>();\n"}},
       "an accumulator is used before wait_for_products"},
  };
  for (const Bug& bug : bugs)
    check_found(problem, Family::sm90, bug);
}

TEST_CASE("missing waits and barriers in the generic kernel are found") {
  RandomLimits limits = small();
  limits.pattern = PatternKind::dense;
  RandomProblem problem = find_problem(limits, {"layout=raster", "edges=full"}, [](RandomProblem& candidate) {
    return candidate.call().q.extents[1] >= 64 && candidate.call().k.extents[1] >= 256;
  });
  const std::string_view schedule = "block_q=64,block_k=32,stages=3,warps=4,blocks_per_processor=1,softmax=online";
  const std::string_view wait =
      "    wait_for_copies<config::stages - 2>(); // this block's values and the next one's keys\n";
  const std::vector<Bug> bugs{
      {"missing wait", {{wait, ""}}, race, schedule},
      {"wait for too little", {{wait, "    wait_for_copies<config::stages - 1>();\n"}}, race, schedule},
      {"missing barrier",
       {{"    synchronize_block();                   // everybody's copies; everybody has left what is loaded next\n",
         ""}},
       race,
       schedule},
      {"stage loaded too early",
       {{"    load_step(block + config::stages, stage);",
         "    load_step(block + config::stages, stage_after(stage));"}},
       race,
       schedule},
      {"list read before it is extended",
       {{"      list.extend(arguments, block + config::stages + 1);",
         "      list.extend(arguments, block + config::stages);"}},
       "which nobody has written",
       schedule},
  };
  for (const Bug& bug : bugs)
    check_found(problem, Family::sm80, bug);
}

} // namespace
} // namespace tilewright::testing
