// Moving bytes between global memory, shared memory and registers: device/copy.cuh on the CPU.
#pragma once

#include <cstring>

#include "device/thread.cuh"

namespace tilewright {

constexpr int copy_bytes = 16; // what one asynchronous copy moves

struct alignas(copy_bytes) Bytes16 {
  uint32_t words[4];
};

TILEWRIGHT_DEVICE void copy_async(SharedAddress destination, const void* source, bool valid,
                                  emulator::Place place = emulator::here()) {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->copy_async(thread, destination, source, valid, place);
}

TILEWRIGHT_DEVICE void commit_copies() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->commit_copies(thread);
}

template <int pending> TILEWRIGHT_DEVICE void wait_for_copies() {
  emulator::Thread& thread = emulator::this_thread();
  thread.services->wait_for_copies(thread, pending);
}

namespace emulator {

template <class Value> inline Value load(SharedAddress address, Place place) {
  Value value;
  std::memcpy(&value, shared_at(this_thread(), address, sizeof value, Access::read, place), sizeof value);
  return value;
}

inline bool holds(const Thread& thread, SharedAddress address, const void* bytes, uint32_t count) {
  const uint32_t offset = address - shared_base;
  return uint64_t{offset} + count <= thread.shared_bytes && std::memcmp(thread.shared + offset, bytes, count) == 0;
}

template <class Value> inline void store(SharedAddress address, const Value& value, Place place) {
  Thread& thread = this_thread();
  const bool equal = thread.watched && holds(thread, address, &value, sizeof value);
  const Access access = equal ? Access::write_equal : Access::write;
  std::memcpy(shared_at(thread, address, sizeof value, access, place), &value, sizeof value);
}

} // namespace emulator

TILEWRIGHT_DEVICE Bytes16 load_shared(SharedAddress address, emulator::Place place = emulator::here()) {
  return emulator::load<Bytes16>(address, place);
}

TILEWRIGHT_DEVICE uint32_t load_shared_word(SharedAddress address, emulator::Place place = emulator::here()) {
  return emulator::load<uint32_t>(address, place);
}

struct alignas(8) FloatPair {
  float first, second;
};

TILEWRIGHT_DEVICE FloatPair load_shared_pair(SharedAddress address, emulator::Place place = emulator::here()) {
  return emulator::load<FloatPair>(address, place);
}

TILEWRIGHT_DEVICE void store_shared(SharedAddress address, uint32_t word, emulator::Place place = emulator::here()) {
  emulator::store(address, word, place);
}

TILEWRIGHT_DEVICE void store_shared(SharedAddress address, const Bytes16& bytes,
                                    emulator::Place place = emulator::here()) {
  emulator::store(address, bytes, place);
}

TILEWRIGHT_DEVICE void store_global(void* destination, const Bytes16& bytes, emulator::Place place = emulator::here()) {
  emulator::check_global(destination, copy_bytes, emulator::Access::write, place);
  std::memcpy(destination, &bytes, copy_bytes);
}

TILEWRIGHT_DEVICE void store_global(float* destination, float value, emulator::Place place = emulator::here()) {
  emulator::check_global(destination, sizeof value, emulator::Access::write, place);
  *destination = value;
}

namespace emulator {

template <class Value> inline void store_to_global(Value* destination, Value value, Place place) {
  check_global(destination, sizeof value, Access::write, place);
  *destination = value;
}

template <class Value> inline Value load_from_global(const void* source, Place place) {
  check_global(source, sizeof(Value), Access::read, place);
  Value value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

} // namespace emulator

TILEWRIGHT_DEVICE void store_global(int32_t* destination, int32_t value, emulator::Place place = emulator::here()) {
  emulator::store_to_global(destination, value, place);
}

TILEWRIGHT_DEVICE void store_global(uint32_t* destination, uint32_t value, emulator::Place place = emulator::here()) {
  emulator::store_to_global(destination, value, place);
}

TILEWRIGHT_DEVICE uint32_t load_global(const uint32_t* source, emulator::Place place = emulator::here()) {
  return emulator::load_from_global<uint32_t>(source, place);
}

TILEWRIGHT_DEVICE Bytes16 load_global_bytes(const void* source, emulator::Place place = emulator::here()) {
  return emulator::load_from_global<Bytes16>(source, place);
}

TILEWRIGHT_DEVICE int32_t load_constant(const int32_t* source, emulator::Place place = emulator::here()) {
  return emulator::load_from_global<int32_t>(source, place);
}

TILEWRIGHT_DEVICE float load_constant(const float* source, emulator::Place place = emulator::here()) {
  return emulator::load_from_global<float>(source, place);
}

TILEWRIGHT_DEVICE uint8_t load_constant(const uint8_t* source, emulator::Place place = emulator::here()) {
  return emulator::load_from_global<uint8_t>(source, place);
}

TILEWRIGHT_DEVICE Bytes16 load_constant_bytes(const void* source, emulator::Place place = emulator::here()) {
  return emulator::load_from_global<Bytes16>(source, place);
}

} // namespace tilewright
