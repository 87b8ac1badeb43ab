// Ed25519 signatures and SHA-256 digests, by OpenSSL.
#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

namespace tilewright::tools {

inline constexpr std::size_t signature_bytes = 64;

/// 64 lowercase hexadecimal digits.
std::string sha256(std::string_view bytes);

/// The 64 bytes of a signature. key: a private Ed25519 key in PEM (`openssl genpkey -algorithm ed25519`), which nobody
/// else may read. Throws invalid_argument where it is none.
std::string sign(std::string_view bytes, const std::filesystem::path& key);

/// Whether the signature is the private key's that belongs to this public one, in PEM (`openssl pkey -pubout`). Throws
/// invalid_argument where it is none.
bool is_signed(std::string_view bytes, std::string_view signature, const std::filesystem::path& public_key);

} // namespace tilewright::tools
