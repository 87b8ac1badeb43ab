// Boxes of a tensor between global and shared memory by the copy engine (TMA; PTX ISA, "Data Movement and Conversion
// Instructions: Tensor copy").
//
// A tensor map (encoded on the host) names a tensor of five dimensions of 16-bit elements, innermost first, and a box
// of 64 x b1 x b2 x b3 x b4 elements. In shared memory a box is b1 b2 b3 b4 rows of 128 bytes, dimension 1 fastest, as
// one panel of a SharedTile: chunk c of row r at place c ^ (r % 8). Its address is a multiple of 1024.
//
// The engine is another "proxy": what ordinary stores wrote to shared memory is visible to it only after
// fence_shared_for_copies() by the thread that stored. What it wrote is visible to those who wait on its barrier.
#pragma once

#include "device/thread.cuh"
#include "kernels/tensor_map.cuh"

namespace tilewright {

/// Where a box begins, in elements of each dimension. May lie outside the tensor, and be negative.
struct BoxOrigin {
  int coordinate[5];
};

/// Brings the map's 128 bytes near. One thread.
TILEWRIGHT_DEVICE void prefetch(const TensorMap& map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory");
}

/// global -> shared. One thread; returns at once. Elements outside the tensor become zeros and count as bytes too: the
/// barrier (in this thread block) must expect the bytes of the whole box.
TILEWRIGHT_DEVICE void copy_box_to_shared(SharedAddress destination, const TensorMap& map, const BoxOrigin& origin,
                                          SharedAddress barrier) {
  const int(&at)[5] = origin.coordinate;
  asm volatile(
      "cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, "
      "%7}], [%2];" ::"r"(destination),
      "l"(&map), "r"(barrier), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4])
      : "memory");
}

/// global -> shared, bytes that follow each other: their number and both addresses are multiples of 16. One thread;
/// counts on the barrier as a box does.
TILEWRIGHT_DEVICE void copy_bytes_to_shared(SharedAddress destination, const void* source, int bytes,
                                            SharedAddress barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(destination),
      "l"(source), "r"(bytes), "r"(barrier)
      : "memory");
}

/// The same box to the same address in the shared memory of every thread block of the cluster whose bit is set in
/// `ranks`; in each of them the bytes count on the barrier at the same address.
TILEWRIGHT_DEVICE void copy_box_to_cluster(SharedAddress destination, const TensorMap& map, const BoxOrigin& origin,
                                           SharedAddress barrier, uint32_t ranks) {
  const int(&at)[5] = origin.coordinate;
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
               "[%1, {%3, %4, %5, %6, %7}], [%2], %8;" ::"r"(destination),
               "l"(&map), "r"(barrier), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4]),
               "h"(static_cast<uint16_t>(ranks))
               : "memory");
}

/// shared -> global. One thread; elements outside the tensor are not written. Belongs to this thread's open group.
TILEWRIGHT_DEVICE void copy_box_to_global(const TensorMap& map, const BoxOrigin& origin, SharedAddress source) {
  const int(&at)[5] = origin.coordinate;
  asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.bulk_group [%0, {%2, %3, %4, %5, %6}], [%1];" ::"l"(&map),
               "r"(source), "r"(at[0]), "r"(at[1]), "r"(at[2]), "r"(at[3]), "r"(at[4])
               : "memory");
}

/// Closes the group of this thread's copies to global memory.
TILEWRIGHT_DEVICE void commit_box_copies() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }

/// Waits until this thread's closed groups have read their shared memory: it may be written again.
TILEWRIGHT_DEVICE void wait_for_box_sources() { asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory"); }

/// Waits until this thread's closed groups have been written. Before the thread block ends.
TILEWRIGHT_DEVICE void wait_for_box_copies() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

/// Makes this thread's earlier stores to shared memory visible to the copy engine and to the matrix unit; others' by
/// meeting them afterwards (a barrier).
TILEWRIGHT_DEVICE void fence_shared_for_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

} // namespace tilewright
