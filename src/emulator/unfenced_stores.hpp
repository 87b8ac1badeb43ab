// What ordinary stores have written to shared memory and no fence has shown to the copy engine and the matrix unit.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace tilewright::emulator {

/// Of one thread block. Addresses are bytes from the beginning of its shared memory; a store covers whole words of 4.
class UnfencedStores {
public:
  void begin(std::size_t shared_bytes, std::size_t threads) {
    owners_.assign((shared_bytes + word_bytes - 1) / word_bytes, none);
    stores_.resize(threads);
    for (auto& words : stores_)
      words.clear();
  }

  void store(std::size_t thread, std::uint32_t offset, std::uint32_t bytes) {
    const auto owner = static_cast<std::uint16_t>(thread + 1);
    for (std::uint32_t word = offset / word_bytes; word * word_bytes < offset + bytes; ++word) {
      if (owners_[word] != owner)
        stores_[thread].push_back(word);
      owners_[word] = owner;
    }
  }

  void fence(std::size_t thread) {
    for (const std::uint32_t word : stores_[thread])
      if (owners_[word] == thread + 1)
        owners_[word] = none;
    stores_[thread].clear();
  }

  /// A thread whose store to these bytes is not fenced.
  [[nodiscard]] std::optional<std::size_t> find(std::uint32_t offset, std::uint32_t bytes) const {
    for (std::uint32_t word = offset / word_bytes; word * word_bytes < offset + bytes; ++word)
      if (owners_[word] != none)
        return owners_[word] - std::size_t{1};
    return std::nullopt;
  }

private:
  static constexpr std::uint32_t word_bytes = 4;
  static constexpr std::uint16_t none = 0;
  std::vector<std::uint16_t> owners_;              // of each word: a thread's index + 1
  std::vector<std::vector<std::uint32_t>> stores_; // words of each thread
};

} // namespace tilewright::emulator
