// XXH3 of values, and of tagged fields for keys that must not collide by concatenation.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace tilewright::support {

/// A 128-bit hash, the same on every host.
struct Hash128 {
  std::uint64_t high = 0, low = 0;
  friend bool operator==(const Hash128&, const Hash128&) = default;
};

/// 32 lowercase hexadecimal digits, the high half first.
std::string to_string(const Hash128& hash);

std::uint64_t hash64(std::span<const std::byte> bytes) noexcept;
Hash128 hash128(std::span<const std::byte> bytes) noexcept;

/// Hashes a sequence of fields. Each goes in as (tag length, tag, value length, value), so no two different sequences
/// feed the same bytes.
class FieldHasher {
public:
  FieldHasher();
  ~FieldHasher();
  FieldHasher(const FieldHasher&) = delete;
  FieldHasher& operator=(const FieldHasher&) = delete;

  FieldHasher& field(std::string_view tag, std::string_view value);
  [[nodiscard]] Hash128 digest() const noexcept;

private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace tilewright::support
