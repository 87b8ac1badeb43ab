#include "support/hash.hpp"

#include <fmt/format.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <array>

namespace tilewright::support {

std::string to_string(const Hash128& hash) { return fmt::format("{:016x}{:016x}", hash.high, hash.low); }

std::uint64_t hash64(std::span<const std::byte> bytes) noexcept { return XXH3_64bits(bytes.data(), bytes.size()); }

Hash128 hash128(std::span<const std::byte> bytes) noexcept {
  const XXH128_hash_t hash = XXH3_128bits(bytes.data(), bytes.size());
  return {hash.high64, hash.low64};
}

struct FieldHasher::State {
  XXH3_state_t stream;

  void update(std::string_view text) {
    // The length in little endian, on every host.
    std::array<unsigned char, sizeof(std::uint64_t)> length{};
    for (std::size_t byte = 0; byte < length.size(); ++byte)
      length[byte] = static_cast<unsigned char>(std::uint64_t{text.size()} >> (8 * byte));
    XXH3_128bits_update(&stream, length.data(), length.size());
    XXH3_128bits_update(&stream, text.data(), text.size());
  }
};

FieldHasher::FieldHasher() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->stream); }
FieldHasher::~FieldHasher() = default;

FieldHasher& FieldHasher::field(std::string_view tag, std::string_view value) {
  state_->update(tag);
  state_->update(value);
  return *this;
}

Hash128 FieldHasher::digest() const noexcept {
  const XXH128_hash_t hash = XXH3_128bits_digest(&state_->stream);
  return {hash.high64, hash.low64};
}

} // namespace tilewright::support
