// .safetensors files: refused with an error, or read to tensors that are written and read again as the same. The first
// byte says whether the header's length is the input's own, or is put right so that the header itself gets tested: then
// the rest is header, a zero byte, data.
#include <cstring>
#include <string>

#include "fuzz.hpp"
#include "safetensors.hpp"

using namespace tilewright;

namespace {

std::string with_length(std::string_view text) {
  const std::size_t header = std::min(text.find('\0'), text.size());
  const std::uint64_t length = header;
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  file += text.substr(0, header);
  file += text.substr(std::min(header + 1, text.size()));
  return file;
}

void check(std::string_view file) try {
  const auto content = tools::parse_safetensors(std::as_bytes(std::span(file)), "input");
  const std::string written = tools::format_safetensors(content);
  const auto again = tools::parse_safetensors(std::as_bytes(std::span(written)), "written");
  fuzz::require(again.metadata == content.metadata, "metadata reads back");
  fuzz::require(again.tensors.size() == content.tensors.size(), "every tensor reads back");
  for (const auto& [name, tensor] : content.tensors) {
    const auto& other = again.tensors.at(name);
    fuzz::require(other.type == tensor.type && other.shape == tensor.shape && other.bytes == tensor.bytes,
                  "a tensor reads back as it was");
  }
} catch (const Error& error) {
  fuzz::check_error(error);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0)
    return 0;
  const std::string_view rest = fuzz::text_of(data + 1, size - 1);
  if (data[0] % 2 == 0)
    check(rest);
  else
    check(with_length(rest));
  return 0;
}
