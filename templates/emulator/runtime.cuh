// What an emulated kernel and the emulator's runtime (src/emulator) know of each other. Compiled into both.
#pragma once

#include "device/integers.cuh"

namespace tilewright::emulator {

constexpr int warp_lanes = 32;

/// SharedAddress of the first byte of dynamic shared memory. Not 0, so that an address that was never set is noticed; a
/// multiple of the swizzle's period.
constexpr uint32_t shared_base = 1024;

/// Every CUDA thread runs on a stack of its own. A stack is aligned to its size and holds its Thread at its low end, so
/// code finds the thread that it belongs to from the address of its own frame. How far from the end depends on the
/// stack's number: at equal distances all Threads would share one set of the processor's caches.
constexpr uintptr_t stack_bytes = 128 * 1024;
constexpr uintptr_t thread_bytes = 5 * 64; // an odd number of cache lines
constexpr uintptr_t thread_places = 32;

/// Where in a template a primitive was called.
struct Place {
  const char* file;
  int line;
};

/// As a default argument: the place of the call.
constexpr Place here(const char* file = __builtin_FILE(), int line = __builtin_LINE()) { return {file, line}; }

/// What all lanes of a warp do together.
enum class WarpOperation : uint8_t {
  load_matrices,
  load_matrices_transposed,
  store_matrices,
  multiply_add,
  vote,
  shuffle_xor,
  broadcast,
  uniform,
  minimum_of_lanes,
  maximum_of_lanes,
  sum_of_lanes,
  elect_lane,
  synchronize_warp,
  release_registers,
  claim_registers,
  fence_products,
  multiply_shared,
  multiply_registers,
  commit_products,
  wait_for_products
};

/// write_equal: of the bytes that stand there already. Told apart only where every access is noted.
enum class Access : uint8_t { read, write, write_equal };

struct Thread;

/// What the lanes of one warp hand each other at a warp operation. A lane writes its own places, and reads its own
/// results before it comes to the next operation.
struct alignas(64) WarpExchange {
  Thread* threads[warp_lanes];
  uint32_t word[warp_lanes];          // one word of each lane, and
  uint32_t result[warp_lanes];        // one word for each
  int32_t partner[warp_lanes];        // which lane a shuffle reads from
  uint32_t address[warp_lanes];       // load_matrices, store_matrices: of a matrix row
  uint32_t matrix[4][warp_lanes];     // load_matrices, store_matrices: the rows
  uint32_t a[4][warp_lanes];          // products: registers of the fragment
  uint32_t b[2][warp_lanes];          // multiply_add: lane 4 n + k at place 8 k + n, so that columns are neighbours
  float d[2][2 * warp_lanes];         // multiply_add: rows 0 .. 7 and 8 .. 15 of 8 columns
  float* accumulator[warp_lanes];     // asynchronous products
  uint64_t descriptor[2][warp_lanes]; // asynchronous products: of a and b
  int32_t elected;                    // the lane that elect_lane finds
  uint64_t bytes_loaded;              // of global memory, by ordinary instructions, and
  uint64_t bytes_stored;              // not yet counted
};

/// What a warp operation computes, once, from what all lanes have put into the exchange.
using WarpWork = void (*)(WarpExchange& exchange, Place place);

/// One warp's part of an asynchronous product: 16 rows of a (from shared memory rows 16 warp .. 16 warp + 15 of 64),
/// times b, 16 x columns.
struct ProductOperands {
  const unsigned char* shared; // host memory of SharedAddress shared_base
  bool a_in_shared, b_k_in_rows;
  uint64_t a_descriptor, b_descriptor;
  uint32_t a[4][warp_lanes]; // registers, unless a_in_shared
  int32_t warp;              // within its warpgroup
  int32_t columns;
};

/// sums (16 x columns, row-major) += a b.
using ProductWork = void (*)(const ProductOperands& operands, float* sums);

struct ProductRequest {
  ProductOperands operands;
  ProductWork work;
  bool accumulate;                // else the sums begin with 0
  float* accumulator[warp_lanes]; // each lane's registers: columns / 2
};

/// Where a box begins and ends, and what it counts on.
struct BoxRequest {
  const void* map; // the 128 bytes that encode() made
  int32_t origin[5];
  uint32_t shared;  // address of the box in shared memory
  uint32_t barrier; // to shared memory only
  uint32_t ranks;   // to shared memory only: thread blocks of the cluster, a bit each
};

/// Bytes that follow each other, on their way to shared memory.
struct BytesRequest {
  const void* source;
  uint32_t shared, bytes, barrier;
};

/// The runtime, as kernels call it. Each function may switch to other CUDA threads, and throws what is wrong.
struct Services {
  /// Returns when all lanes of the warp have come here and the work is done.
  void (*meet_warp)(Thread& thread, WarpOperation operation, WarpWork work, Place place);
  void (*synchronize_block)(Thread& thread, Place place);
  void (*synchronize_cluster)(Thread& thread, Place place);
  /// A numbered barrier; whether the condition holds for any of the threads that meet.
  bool (*meet_threads)(Thread& thread, int id, int threads, bool condition, Place place);

  /// Throws where the access is out of bounds or not aligned to its size; else notes it.
  void (*check_shared)(Thread& thread, uint32_t address, uint32_t bytes, Access access, Place place);
  void (*check_global)(Thread& thread, const void* address, uint32_t bytes, Access access, Place place);

  void (*copy_async)(Thread& thread, uint32_t destination, const void* source, bool valid, Place place);
  void (*commit_copies)(Thread& thread);
  void (*wait_for_copies)(Thread& thread, int pending);

  void (*initialize_barrier)(Thread& thread, uint32_t barrier, int arrivals, Place place);
  void (*publish_barriers)(Thread& thread);
  /// Announces bytes, then arrives count times. rank: which thread block's barrier; negative: the thread's own.
  void (*arrive)(Thread& thread, uint32_t barrier, int rank, int count, int bytes, Place place);
  void (*wait_for_phase)(Thread& thread, uint32_t barrier, uint32_t parity, Place place);
  bool (*has_passed)(Thread& thread, uint32_t barrier, uint32_t parity, Place place);

  void (*check_map)(Thread& thread, const void* map, Place place);
  void (*copy_box_to_shared)(Thread& thread, const BoxRequest& box, Place place);
  void (*copy_bytes_to_shared)(Thread& thread, const BytesRequest& request, Place place);
  void (*copy_box_to_global)(Thread& thread, const BoxRequest& box, Place place);
  void (*commit_box_copies)(Thread& thread);
  void (*wait_for_boxes)(Thread& thread, bool only_sources);
  void (*fence_shared)(Thread& thread);
  /// Throws where products into these registers have not been waited for.
  void (*check_accumulator)(Thread& thread, const float* registers, Place place);

  // Of a whole warp: called once, by its last lane to come.
  void (*set_registers)(Thread& thread, int registers, Place place);
  void (*fence_products)(Thread& thread);
  void (*issue_product)(Thread& thread, const ProductRequest& product, Place place);
  void (*commit_products)(Thread& thread);
  void (*wait_for_products)(Thread& thread, int pending, Place place);
};

/// A CUDA thread, as far as kernels know it.
struct Thread {
  const Services* services;
  WarpExchange* exchange;
  unsigned char* shared; // the thread block's dynamic shared memory
  uint32_t shared_bytes;
  bool watched; // every access is to be noted, not only checked
  uint8_t rank; // of the thread block in its cluster
  int32_t index, block, grid;
};

inline Thread& thread_of_stack(uintptr_t number) {
  return *reinterpret_cast<Thread*>(number * stack_bytes + number % thread_places * thread_bytes);
}

inline Thread& this_thread() {
  return thread_of_stack(reinterpret_cast<uintptr_t>(__builtin_frame_address(0)) / stack_bytes);
}

inline int lane_of(const Thread& thread) { return thread.index % warp_lanes; }

/// The host's memory behind `bytes` bytes (a power of two) of shared memory, for an access of that size.
inline unsigned char* shared_at(Thread& thread, uint32_t address, uint32_t bytes, Access access, Place place) {
  const uint32_t offset = address - shared_base;
  const bool inside = uint64_t{offset} + bytes <= thread.shared_bytes && address % bytes == 0;
  if (!inside || thread.watched) {
    thread.services->check_shared(thread, address, bytes, access, place);
  }
  return thread.shared + offset;
}

constexpr uint32_t matrix_row_bytes = 16; // of the matrices that ldmatrix loads: 8 elements

/// The host's memory behind a matrix's row, whose address one lane has named and whose words others access. lanes:
/// those of a word, a bit each.
template <class Lanes>
unsigned char* matrix_row_at(WarpExchange& exchange, int row, Access access, Lanes lanes, Place place) {
  Thread& named_by = *exchange.threads[row];
  const uint32_t address = exchange.address[row];
  if (!named_by.watched || address % matrix_row_bytes != 0) {
    return shared_at(named_by, address, matrix_row_bytes, access, place);
  }
  for (int word = 0; word < 4; ++word) {
    for (int lane = 0; lane < warp_lanes; ++lane) {
      if ((lanes(word) >> lane & 1) != 0) {
        shared_at(*exchange.threads[lane], address + static_cast<uint32_t>(4 * word), 4, access, place);
      }
    }
  }
  return named_by.shared + (address - shared_base);
}

inline void check_global(const void* address, uint32_t bytes, Access access, Place place) {
  Thread& thread = this_thread();
  (access == Access::read ? thread.exchange->bytes_loaded : thread.exchange->bytes_stored) += bytes;
  if (reinterpret_cast<uintptr_t>(address) % bytes != 0 || thread.watched) {
    thread.services->check_global(thread, address, bytes, access, place);
  }
}

/// All lanes give a word, and each gets one back, as the work leaves it in the exchange.
inline uint32_t exchange_words(uint32_t word, WarpOperation operation, WarpWork work, Place place) {
  Thread& thread = this_thread();
  WarpExchange& exchange = *thread.exchange;
  const int lane = lane_of(thread);
  exchange.word[lane] = word;
  thread.services->meet_warp(thread, operation, work, place);
  return exchange.result[lane];
}

inline void set_results(WarpExchange& exchange, uint32_t result) {
  for (uint32_t& of_lane : exchange.result) {
    of_lane = result;
  }
}

} // namespace tilewright::emulator
