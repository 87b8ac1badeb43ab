// Values parked in shared memory, so that they hold no registers while they are not looked at.
#pragma once

#include "device/copy.cuh"

#if !defined(__CUDACC_RTC__) // NVRTC knows memcpy without a header
#include <cstring>
#endif

namespace tilewright {

/// Bytes that a parked value takes: whole copies of 16 bytes.
template <class Value> constexpr int parked_bytes = (sizeof(Value) + copy_bytes - 1) / copy_bytes* copy_bytes;

/// One thread writes; the others may read after a barrier. slot is a multiple of 16.
template <class Value> TILEWRIGHT_DEVICE void park(SharedAddress slot, const Value& value) {
  Bytes16 chunks[parked_bytes<Value> / copy_bytes] = {};
  memcpy(chunks, &value, sizeof(Value));
#pragma unroll
  for (int i = 0; i < parked_bytes<Value> / copy_bytes; ++i) {
    store_shared(slot + i * copy_bytes, chunks[i]);
  }
}

template <class Value> TILEWRIGHT_DEVICE Value parked(SharedAddress slot) {
  Bytes16 chunks[parked_bytes<Value> / copy_bytes];
#pragma unroll
  for (int i = 0; i < parked_bytes<Value> / copy_bytes; ++i) {
    chunks[i] = load_shared(slot + i * copy_bytes);
  }
  Value value;
  memcpy(&value, chunks, sizeof(Value));
  return value;
}

} // namespace tilewright
