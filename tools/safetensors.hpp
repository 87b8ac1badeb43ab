// .safetensors files: an 8-byte little-endian header length, a JSON header, then the tensors' bytes
// (https://github.com/huggingface/safetensors, "Format"). Read strictly: a file that lies about itself is an error.
#pragma once

#include <cstddef>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>

#include "host_tensor.hpp"

namespace tilewright::tools {

struct Safetensors {
  std::map<std::string, HostTensor> tensors;
  std::map<std::string, std::string> metadata;
};

/// Throws invalid_argument, with the path and the offence: a header that is truncated, too long, no JSON object, or
/// names a tensor twice; an unknown dtype; a shape that overflows or disagrees with its bytes; offsets that overlap,
/// leave gaps, or lie outside the file.
Safetensors read_safetensors(const std::filesystem::path& path);

/// The same from memory; name stands for the path in errors.
Safetensors parse_safetensors(std::span<const std::byte> file, std::string_view name);

std::string format_safetensors(const Safetensors& content);

/// Whole or not at all: see write_output.
void write_safetensors(const std::filesystem::path& path, const Safetensors& content);

} // namespace tilewright::tools
