// The race detector: what nothing orders is found under every seed, however the threads happened to run; what barriers
// and waits order is left alone.
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include "emulator/tiny_kernel.hpp"
#include "emulator/whole_kernel.hpp"

namespace tilewright::testing {
namespace {

struct Nothing {};

EmulatorOptions checking() {
  EmulatorOptions options = test_options();
  options.check_races = true;
  return options;
}

/// What is said of two warps' code under each of some seeds; all must agree on whether there is a complaint.
std::string said(const std::string& body, int threads = 64) {
  const Tiny tiny({"device/barrier.cuh device/copy.cuh device/matrix.cuh", "", body, threads});
  EmulatorOptions options = checking();
  std::string first;
  for (options.seed = 0; options.seed < 8; ++options.seed) {
    const std::string complaint = tiny.complaint(Nothing{}, {1, 1, 4096}, options);
    if (options.seed == 0)
      first = complaint;
    CHECK(complaint.empty() == first.empty());
  }
  return first;
}

bool contains(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

const std::string store = "if (warp_index() == 0) { store_shared(shared_memory() + 4 * lane_index(), 1u); }\n";
const std::string load = "if (warp_index() == 1) { (void)load_shared_word(shared_memory() + 4 * lane_index()); }\n";
const std::string start = R"(
  const SharedAddress barrier = shared_memory() + 2048;
  if (thread_index() == 0) { initialize_barrier(barrier, 32); }
  synchronize_block();
)";

} // namespace

TEST_CASE("a write and a read in different warps need a barrier between them") {
  const std::string race =
      said("store_shared(shared_memory() + 4 * thread_index(), 0u);\nsynchronize_block();\n" + store + load);
  CHECK(contains(race, "a race with thread"));
  CHECK(contains(race, "tiny.cu:"));
  CHECK(contains(race, "nothing orders the two"));
  CHECK(said(store + "synchronize_block();\n" + load) == "");
  CHECK(said(store + "synchronize_threads(2, 64);\n" + load) == "");
}

TEST_CASE("a write after a read needs one too, and so does a write after a write") {
  const std::string begin = store + "synchronize_block();\n" + load;
  const std::string again = "if (warp_index() == 0) { store_shared(shared_memory() + 4 * lane_index(), 2u); }\n";
  CHECK(contains(said(begin + again), "a race with"));
  CHECK(said(begin + "synchronize_block();\n" + again) == "");
  CHECK(contains(said("store_shared(shared_memory() + 4 * lane_index(), 1u + warp_index());\n"), "a race with"));
}

TEST_CASE("stores of equal values race with what came before the first but not with each other or their readers") {
  const std::string begin = "store_shared(shared_memory() + 4 * thread_index(), 1u);\nsynchronize_block();\n";
  const std::string both = "store_shared(shared_memory() + 4 * lane_index(), 2u);\nsynchronize_warp();\n",
                    read = "(void)load_shared_word(shared_memory() + 4 * (lane_index() ^ 1));\n";
  CHECK(said(begin + both + read) == "");
  CHECK(said(begin + both + "synchronize_block();\n" + read + "synchronize_block();\n" + store) == "");
  CHECK(
      contains(said(begin + "store_shared(shared_memory() + 4 * lane_index(), 2u + warp_index());\n"), "a race with"));
  // Only warp 0 has waited for warp 1's read of the first value.
  const std::string start_reading = "const SharedAddress barrier = shared_memory() + 2048;\n"
                                    "if (thread_index() == 0) { initialize_barrier(barrier, 32); }\n" +
                                    begin + "if (warp_index() == 1) { " + read + "arrive(barrier); }\n";
  const std::string wait_in_first = "if (warp_index() == 0) { wait(barrier, 0); " + both + "}\n",
                    third_stores = "if (warp_index() == 2) { " + both + "}\n";
  CHECK(said(start_reading + wait_in_first, 96) == "");
  CHECK(said(start_reading + wait_in_first + third_stores, 96) != "");
  // Who knows of one of the two stores may not yet store another value.
  CHECK(contains(
      said(begin + both + "if (warp_index() == 0) { store_shared(shared_memory() + 4 * lane_index(), 3u); }\n"),
      "a race with"));
}

TEST_CASE("an arrival and the wait for its phase order accesses; an arrival before the store does not") {
  const std::string wait_then_load = "if (warp_index() == 1) { wait(barrier, 0); }\n" + load;
  const std::string arrive = "if (warp_index() == 0) { arrive(barrier); }\n";
  CHECK(said(start + store + arrive + wait_then_load) == "");
  CHECK(said(start + arrive + store + wait_then_load) != "");
}

TEST_CASE("lanes of one warp need synchronize_warp; a vote orders what they have read, not what they have written") {
  const std::string exchange = "store_shared(shared_memory() + 4 * lane_index(), 1u);\n",
                    other = "(void)load_shared_word(shared_memory() + 4 * (lane_index() ^ 1));\n";
  CHECK(said(exchange + other, 32) != "");
  CHECK(said(exchange + "(void)vote(true);\n" + other, 32) != "");
  CHECK(said(exchange + "synchronize_warp();\n" + other, 32) == "");
  const std::string overwrite = "store_shared(shared_memory() + 4 * lane_index(), 2u);\n";
  CHECK(said(exchange + "synchronize_warp();\n" + other + overwrite, 32) != "");
  const auto rounds = [](const std::string& between) {
    return "for (int i = 0; i < 2; ++i) {\n  if (lane_index() == i) { store_shared(shared_memory(), 1u + i); }\n" +
           between + "}\n";
  };
  CHECK(said(rounds("(void)vote(true);\n"), 32) != "");
  CHECK(said(rounds("synchronize_warp();\n"), 32) == "");
  CHECK(said(exchange + "synchronize_warp();\n" + other + "(void)vote(true);\n" + overwrite, 32) == "");
}

TEST_CASE("asynchronous copies are known to a thread when it has waited for them, and to others after a barrier") {
  const std::string copy = "alignas(16) static const char bytes[1024] = {};\n"
                           "copy_async(shared_memory() + 16 * thread_index(), bytes + 16 * thread_index(), true);\n"
                           "commit_copies();\n";
  const std::string own = "(void)load_shared(shared_memory() + 16 * thread_index());\n",
                    others = "(void)load_shared(shared_memory() + 16 * (63 - thread_index()));\n";
  CHECK(said(copy + own) != "");
  CHECK(said(copy + "wait_for_copies<1>();\n" + own) != "");
  CHECK(said(copy + "wait_for_copies<0>();\n" + own) == "");
  CHECK(said(copy + "wait_for_copies<0>();\n" + others) != "");
  CHECK(said(copy + "wait_for_copies<0>();\nsynchronize_block();\n" + others) == "");
  CHECK(said(copy + "synchronize_block();\nwait_for_copies<0>();\n" + others) != "");
}

TEST_CASE("barriers must be there before others use them, and memory must have been written before it is read") {
  CHECK(said("const SharedAddress barrier = shared_memory();\nif (thread_index() == 0) { initialize_barrier(barrier, "
             "64); }\n"
             "arrive(barrier);\n") != "");
  CHECK(contains(said(load), "which nobody has written"));
}

TEST_CASE("a word of global memory is written by one thread of a launch") {
  const std::string global = "alignas(16) static float words[256];\n";
  CHECK(said(global + "store_global(words + thread_index(), 1.f);\n") == "");
  CHECK(said(global + "store_global(words + thread_index(), 1.f);\nstore_global(words + thread_index(), 2.f);\n") ==
        "");
  CHECK(contains(said(global + "store_global(words + thread_index() / 2, 1.f);\n"), "has written there at tiny.cu:"));
  const Tiny blocks({"device/copy.cuh", "", global + "store_global(words + thread_index(), 1.f);\n", 64});
  CHECK(blocks.complaint(Nothing{}, {1, 1, 64}, checking()) == "");
  CHECK(contains(blocks.complaint(Nothing{}, {2, 1, 64}, checking()), "of block 0 has written there"));
}

TEST_CASE("the words of a matrix's row are read and written by the lanes that hold them") {
  const std::string start_of_rows = "const SharedAddress row = shared_memory() + 16 * lane_index();\n"
                                    "store_shared(row, Bytes16{});\nsynchronize_warp();\nunsigned f[4];\n"
                                    "load_matrices(f, row);\n",
                    overwrite = "store_shared(row, Bytes16{{1, 2, 3, 4}});\n";
  CHECK(contains(said(start_of_rows + overwrite, 32), "a race with"));
  CHECK(said(start_of_rows + "synchronize_warp();\n" + overwrite, 32) == "");
}

TEST_CASE("launches are counted: the same numbers on every host and for every seed") {
  RandomLimits limits;
  limits.pattern = PatternKind::dense;
  limits.dtype = DataType::bf16;
  limits.head_dim = 64;
  limits.layout = Layout::raster;
  limits.max_flops = 3e6;
  limits.any_strides = false;
  RandomProblem problem = find_problem(limits, {"edges=full"},
                                       [](RandomProblem& candidate) { return candidate.call().k.extents[1] == 640; });
  const AttentionForward& call = problem.call();
  const auto blocks = static_cast<std::uint64_t>((call.q.extents[1] + 63) / 64 * call.q.extents[0] * call.q.extents[2]);
  const auto rows = static_cast<std::uint64_t>(call.q.extents[0] * call.q.extents[1] * call.q.extents[2]);
  const std::uint64_t lse_bytes = call.lse ? rows * sizeof(float) : 0;
  struct Recorded {
    const char* schedule;
    std::uint64_t bytes_stored, zero_rows, query_tile_bytes, instructions_per_block;
  };
  // A block of 64 rows and 640 keys of 64 columns: 64 x 640 x 64 x 2 products of 16 x 8 x 16 (mma), or for each of four
  // warps of 16 x 64 x 16 (wgmma). Keys and values are loaded once a block: 2 x 640 rows of 128 bytes.
  // The generic kernel's ring runs on behind the last block: 3 stages of keys and 2 of values become zeros. Its output
  // goes out of registers.
  for (const Recorded& recorded :
       {Recorded{"family=sm80,block_q=64,block_k=32,stages=3,warps=4,blocks_per_processor=1,softmax=online",
                 lse_bytes + rows * 128, 5 * 32, 0, 2 * 64 * 640 * 64 / (16 * 8 * 16)},
        Recorded{"family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,consumer_registers=208,"
                 "producer_registers=40,cluster=1,overlap=1,softmax=online",
                 lse_bytes, 0, 64 * 128, 2 * 64 * 640 * 64 / (16 * 64 * 16)}}) {
    CAPTURE(recorded.schedule);
    const WholeKernel kernel(schedule::insisted_spec(problem.problem(), {9, 0, 0}, parse_schedule(recorded.schedule)));
    for (const std::uint64_t seed : {1U, 2U}) {
      EmulatorOptions options = test_options();
      options.seed = seed;
      EmulatorCounters counters;
      options.counted = [&](std::string_view, const EmulatorCounters& counted) { counters = counted; };
      CHECK(kernel.complaint(problem, options) == "");
      CHECK(counters == EmulatorCounters{.bytes_loaded = 0,
                                         .bytes_stored = recorded.bytes_stored,
                                         .bytes_to_shared = blocks * (64 + 2 * 640 + recorded.zero_rows) * 128,
                                         .bytes_from_shared = blocks * recorded.query_tile_bytes,
                                         .matrix_instructions = blocks * recorded.instructions_per_block,
                                         .bank_conflicts = 0});
    }
  }
}

TEST_CASE("rows that stand 128 bytes apart conflict in ldmatrix; swizzled ones do not") {
  for (const bool swizzled : {false, true}) {
    const Tiny tiny({"device/matrix.cuh", "",
                     std::string("unsigned f[4];\nconst int row = lane_index() % 8, chunk = ") +
                         (swizzled ? "row" : "0") +
                         ";\nload_matrices(f, shared_memory() + 128 * row + 16 * chunk);\n"});
    EmulatorOptions options = test_options();
    EmulatorCounters counters;
    options.counted = [&](std::string_view, const EmulatorCounters& counted) { counters = counted; };
    tiny.run(Nothing{}, {1, 1, 1024}, options);
    CHECK(counters.bank_conflicts == (swizzled ? 0 : 4 * 7)); // four matrices, seven passes more than one each
  }
}

TEST_CASE("host threads share a launch: whatever their number, the same results and the same first complaint") {
  struct Arguments {
    float* results;
    int wrong_from;
  };
  const Tiny tiny({"device/copy.cuh", "float* results; int wrong_from;",
                   "store_shared(shared_memory() + 4 * thread_index(), static_cast<unsigned>(block_index()));\n"
                   "if (block_index() < arguments.wrong_from) { synchronize_block(); }\n"
                   "const unsigned word = load_shared_word(shared_memory() + 4 * (63 - thread_index()));\n"
                   "store_global(arguments.results + 64 * block_index() + thread_index(), static_cast<float>(word));\n",
                   64});
  constexpr std::uint32_t grid = 40;
  std::string first;
  for (const int threads : {1, 2, 4, 7}) {
    EmulatorOptions options = checking();
    options.threads = threads;
    std::vector<float> results(64 * grid, -1.f);
    CHECK(tiny.complaint(Arguments{results.data(), grid}, {grid, 1, 256}, options) == "");
    for (std::size_t i = 0; i < results.size(); ++i)
      REQUIRE(results[i] == static_cast<float>(i / 64));
    const std::string complaint = tiny.complaint(Arguments{results.data(), 20}, {grid, 1, 256}, options);
    CHECK(contains(complaint, "of block 20 at tiny.cu"));
    if (threads == 1)
      first = complaint;
    CHECK(complaint == first);
  }
}

} // namespace tilewright::testing
