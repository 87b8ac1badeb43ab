// Who has stored where in global memory, in one launch: kernels write each word of their results once.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <unordered_map>

#include "emulator/runtime.cuh"

namespace tilewright::emulator {

/// Thread-safe: the thread blocks of a launch share it.
class GlobalStores {
public:
  struct Store {
    std::int32_t block, thread; // within its grid, within its block
    Place place;
  };

  /// Notes a store. Where another thread has stored to one of these words before: that store.
  std::optional<Store> note(const void* address, std::uint32_t bytes, const Store& store) {
    constexpr std::uintptr_t word_bytes = 4;
    const auto first = reinterpret_cast<std::uintptr_t>(address) / word_bytes;
    const auto end = (reinterpret_cast<std::uintptr_t>(address) + bytes + word_bytes - 1) / word_bytes;
    const std::lock_guard lock(mutex_);
    for (std::uintptr_t word = first; word < end; ++word) {
      const auto [found, is_new] = stores_.try_emplace(word, store);
      if (!is_new && (found->second.block != store.block || found->second.thread != store.thread))
        return found->second;
    }
    return std::nullopt;
  }

private:
  std::mutex mutex_;
  std::unordered_map<std::uintptr_t, Store> stores_;
};

} // namespace tilewright::emulator
