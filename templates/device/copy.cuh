// Moving bytes between global memory, shared memory and registers.
#pragma once

#include "device/thread.cuh"

namespace tilewright {

constexpr int copy_bytes = 16; // what one asynchronous copy moves

struct alignas(copy_bytes) Bytes16 {
  uint32_t words[4];
};

/// global -> shared without passing through registers (PTX cp.async). Writes zeros and reads nothing unless valid.
TILEWRIGHT_DEVICE void copy_async(SharedAddress destination, const void* source, bool valid) {
  const int source_bytes = valid ? copy_bytes : 0;
  asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(destination), "l"(source),
               "r"(source_bytes)
               : "memory");
}

/// Closes a group of this thread's copies.
TILEWRIGHT_DEVICE void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/// Waits until at most the `pending` newest groups of this thread are unfinished. Other threads' copies need a barrier
/// too.
template <int pending> TILEWRIGHT_DEVICE void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

TILEWRIGHT_DEVICE Bytes16 load_shared(SharedAddress address) {
  Bytes16 bytes;
  asm volatile("ld.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bytes.words[0]), "=r"(bytes.words[1]), "=r"(bytes.words[2]), "=r"(bytes.words[3])
               : "r"(address)
               : "memory");
  return bytes;
}

TILEWRIGHT_DEVICE uint32_t load_shared_word(SharedAddress address) {
  uint32_t word;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(address) : "memory");
  return word;
}

TILEWRIGHT_DEVICE void store_shared(SharedAddress address, uint32_t word) {
  asm volatile("st.shared.u32 [%0], %1;" ::"r"(address), "r"(word) : "memory");
}

TILEWRIGHT_DEVICE void store_shared(SharedAddress address, const Bytes16& bytes) {
  asm volatile("st.shared.v4.u32 [%0], {%1, %2, %3, %4};" ::"r"(address), "r"(bytes.words[0]), "r"(bytes.words[1]),
               "r"(bytes.words[2]), "r"(bytes.words[3])
               : "memory");
}

TILEWRIGHT_DEVICE void store_global(void* destination, const Bytes16& bytes) {
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(destination), "r"(bytes.words[0]), "r"(bytes.words[1]),
               "r"(bytes.words[2]), "r"(bytes.words[3])
               : "memory");
}

TILEWRIGHT_DEVICE void store_global(float* destination, float value) { *destination = value; }

/// Memory that no kernel writes while this one runs.
TILEWRIGHT_DEVICE int32_t load_constant(const int32_t* source) { return __ldg(source); }

} // namespace tilewright
