// Kernels that are wrong: each fault is found and named.
#include <array>
#include <cstdint>
#include <string>

#include <doctest/doctest.h>

#include "emulator/tiny_kernel.hpp"
#include "kernels/tensor_map.cuh"

namespace tilewright::testing {
namespace {

struct Nothing {};

/// The complaint about a kernel without arguments.
std::string complaint(const std::string& includes, const std::string& body, int threads = 32,
                      Tiny::Shape shape = {1, 1, 1024}) {
  return Tiny({includes, "", body, threads}).complaint_under_seeds(Nothing{}, shape, 16);
}

void check_contains(const std::string& text, std::initializer_list<const char*> parts) {
  for (const char* const part : parts) {
    CAPTURE(text);
    CAPTURE(part);
    CHECK(text.find(part) != std::string::npos);
  }
}

TEST_CASE("an access outside shared memory names kernel, block, thread, place and address") {
  check_contains(complaint("device/copy.cuh", "if (lane_index() == 5) {\n store_shared(shared_memory() + 1024, 1u); }"),
                 {"tiny: thread 5 (warp 0, lane 5) of block 0 at tiny.cu:", "writes 4 bytes at shared address 2048",
                  "the 1024 bytes from 1024 on", "seed 0"});
  check_contains(complaint("device/copy.cuh", "load_shared(shared_memory() + 1016);"), {"2040", "multiple of 16"});
  check_contains(complaint("device/copy.cuh", "load_shared(0);"), {"reads 16 bytes at shared address 0"});
  check_contains(complaint("device/copy.cuh", "load_shared(shared_memory() + 1024 * 1024 * 1024 * 3u);"),
                 {"reads 16 bytes at"});
  check_contains(complaint("device/matrix.cuh",
                           "unsigned f[4]; load_matrices(f, shared_memory() + (lane_index() == 9 ? 1024 : 0));"),
                 {"lane 9", "reads 16 bytes at shared address 2048"});
  check_contains(complaint("device/copy.cuh", "copy_async(shared_memory() + 1024, nullptr, false);"), {"2048"});
  check_contains(
      complaint("device/copy.cuh",
                "alignas(16) static const char bytes[32] = {}; copy_async(shared_memory(), bytes + 8, true);"),
      {"reads 16 bytes at global address", "multiple of 16"});
}

TEST_CASE("lanes that come to different warp operations are named, and so are both operations") {
  check_contains(
      complaint("device/matrix.cuh", R"(
    unsigned f[4];
    if (lane_index() < 8) {
      load_matrices(f, shared_memory());
    } else {
      synchronize_warp();
    })"),
      {"load_matrices", "synchronize_warp", "tiny.cu:", "all lanes of a warp must come to the same operation"});
}

TEST_CASE("a deadlock says who waits for what") {
  check_contains(
      complaint("device/barrier.cuh", R"(
    if (warp_index() == 1) {
      synchronize_threads(3, 64);
    } else {
      synchronize_block();
    })",
                64),
      {"deadlock", "block 0 warp 0 lanes 0-31 wait at synchronize_block (tiny.cu:",
       "block 0 warp 1 lanes 0-31 wait at synchronize_threads (tiny.cu:", "at barrier 3, where 32 of 64 threads are"});
  check_contains(
      complaint("device/thread.cuh", "if (lane_index() % 8 != 1) { synchronize_warp(); }"),
      {"warp 0 lanes 0, 2-8, 10-16, 18-24, 26-31 wait at synchronize_warp", "lanes 1, 9, 17, 25 have finished"});
  check_contains(complaint("device/barrier.cuh", R"(
    const SharedAddress barrier = shared_memory() + 8;
    if (thread_index() == 0) {
      initialize_barrier(barrier, 2);
      arrive_expecting(barrier, 64);
    }
    synchronize_warp();
    wait(barrier, 0);)"),
                 {"wait at wait (tiny.cu:", "for parity 0 of the barrier at shared address 1032",
                  "phase 0 lacks 1 arrivals and 64 bytes"});
}

TEST_CASE("barriers in shared memory refuse what they are not made for") {
  const std::string start = R"(
    const SharedAddress barrier = shared_memory();
    if (thread_index() == 0) {
      initialize_barrier(barrier, 2);
    }
    synchronize_warp();
  )";
  const auto wrong = [&](const std::string& body) { return complaint("device/barrier.cuh device/copy.cuh", body); };
  check_contains(wrong("arrive(shared_memory());"), {"no barrier has been initialised there"});
  check_contains(wrong(start + "if (lane_index() == 0) { arrive(barrier, 3); }"),
                 {"arrives 3 times", "phase 0 lacks 2 arrivals"});
  check_contains(wrong(start + "if (lane_index() == 0) { initialize_barrier(barrier, 2); }"), {"again"});
  check_contains(wrong(start + "if (lane_index() == 0) { store_shared(barrier, 0u); arrive(barrier); }"),
                 {"something has been written over it"});
  check_contains(wrong(start + "wait(barrier, 2);"), {"parity 2"});
  check_contains(wrong("synchronize_threads(0, 32);"), {"barriers 1 to 15"});
  check_contains(wrong("synchronize_threads(1, 48);"), {"whole warps"});
}

TEST_CASE("threads that meet at a numbered barrier must count the same") {
  check_contains(complaint("device/barrier.cuh", "synchronize_threads(1, warp_index() == 2 ? 96 : 64);", 96),
                 {"comes to barrier 1 for", "where others wait for"});
}

TEST_CASE("registers cannot be claimed that nobody has handed back") {
  check_contains(complaint("device/warpgroup.cuh", "claim_registers<256>();", 256), {"deadlock", "claim_registers"});
  check_contains(complaint("device/warpgroup.cuh", "release_registers<256>();", 256),
                 {"releases all but 256 registers", "248 registers per thread"});
}

// A product of zeros by zeros; the operands are in the first 16 KiB.
const std::string product_start = R"(
  for (int i = thread_index(); i < 1024; i += 128) {
    store_shared(shared_memory() + i * 16, Bytes16{});
  }
  fence_shared_for_copies();
  synchronize_block();
  float d[32] = {};
  const SharedMatrix a = SharedMatrix::k_in_columns(shared_memory()), b = SharedMatrix::k_in_columns(shared_memory() + 8192);
)";
const std::string product_includes =
    "device/barrier.cuh device/copy.cuh device/tensor_copy.cuh device/warpgroup.cuh device/warpgroup_matrix.cuh";
const std::string product = "multiply_shared<BFloat16, true>(d, a, b);";

std::string product_complaint(const std::string& body) {
  return complaint(product_includes, product_start + body, 128, {1, 1, 16384});
}

TEST_CASE("products must be fenced, committed and waited for, and their accumulators left alone") {
  const std::string fence = "fence_products();", commit = "commit_products();", wait = "wait_for_products<0>();";
  CHECK(product_complaint(fence + product + commit + wait + "d[0] += 1.f;" + fence + product + commit + wait).empty());
  check_contains(product_complaint(product + commit + wait), {"without a fence"});
  check_contains(product_complaint(fence + product + commit + wait + product + commit + wait), {"without a fence"});
  check_contains(product_complaint(fence + product + wait), {"not waited for"});
  check_contains(product_complaint(fence + product + commit), {"not waited for"});
  check_contains(product_complaint(fence + product + commit + "d[3] = 1.f;" + wait),
                 {"an accumulator was written to while products into it were in flight"});
  const std::string use = "\n#line 70 \"use.cu\"\npin(d);\n#line 90 \"tiny.cu\"\n";
  CHECK(product_complaint("pin(d);" + fence + product + commit + wait + "pin(d);").empty());
  check_contains(product_complaint(fence + product + commit + use + wait),
                 {"use.cu:70", "an accumulator is used before wait_for_products"});
  check_contains(
      product_complaint(fence + product + commit + fence + product + commit + "wait_for_products<1>();" + use + wait),
      {"use.cu:70", "an accumulator is used before wait_for_products"});
  check_contains(product_complaint(fence + "if (warp_index() != 3) {" + product +
                                   "} else { multiply_shared<BFloat16, true>(d, b, a); }" + commit + wait),
                 {"the warps of a warpgroup issue different products"});
  check_contains(product_complaint(fence + "multiply_shared<BFloat16, true>(d, a, b + 8192);" + commit + wait),
                 {"a product reads shared address"});
}

TEST_CASE("the matrix unit does not see stores without a fence") {
  const std::string missing =
      "store_shared(shared_memory() + thread_index() * 16, Bytes16{}); synchronize_block(); fence_products();";
  check_contains(product_complaint(missing + product + "commit_products(); wait_for_products<0>();"),
                 {"where thread", "has stored without a fence", "fence_shared_for_copies"});
}

} // namespace
} // namespace tilewright::testing
