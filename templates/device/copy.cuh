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

struct FloatPair {
  float first, second;
};

/// Two words that follow each other; address is a multiple of 8.
TILEWRIGHT_DEVICE FloatPair load_shared_pair(SharedAddress address) {
  FloatPair pair;
  asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(pair.first), "=f"(pair.second) : "r"(address) : "memory");
  return pair;
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
TILEWRIGHT_DEVICE void store_global(int32_t* destination, int32_t value) { *destination = value; }
TILEWRIGHT_DEVICE void store_global(uint32_t* destination, uint32_t value) { *destination = value; }

/// Global memory that this kernel writes, too: a barrier stands between the other threads' stores and the load.
TILEWRIGHT_DEVICE uint32_t load_global(const uint32_t* source) { return *source; }
TILEWRIGHT_DEVICE Bytes16 load_global_bytes(const void* source) {
  Bytes16 bytes;
  asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(bytes.words[0]), "=r"(bytes.words[1]), "=r"(bytes.words[2]), "=r"(bytes.words[3])
               : "l"(source)
               : "memory");
  return bytes;
}

/// Memory that no kernel writes while this one runs.
TILEWRIGHT_DEVICE int32_t load_constant(const int32_t* source) { return __ldg(source); }
TILEWRIGHT_DEVICE float load_constant(const float* source) { return __ldg(source); }
TILEWRIGHT_DEVICE uint8_t load_constant(const uint8_t* source) { return __ldg(source); }

/// The same, 16 bytes that this multiprocessor reads but once. The compiler may move it.
TILEWRIGHT_DEVICE Bytes16 load_constant_bytes(const void* source) {
  Bytes16 bytes;
  asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
      : "=r"(bytes.words[0]), "=r"(bytes.words[1]), "=r"(bytes.words[2]), "=r"(bytes.words[3])
      : "l"(source));
  return bytes;
}

} // namespace tilewright
