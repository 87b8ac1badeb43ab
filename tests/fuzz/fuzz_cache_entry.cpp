// Cache entries: decode() never throws; what it takes encodes to the same bytes. The first byte says whether the input
// is a whole file, or lacks magic, version and hash, which are put right: no fuzzer guesses a hash.
#include <string>

#include "cache/entry.hpp"
#include "fuzz.hpp"
#include "support/hash.hpp"

using namespace tilewright;

namespace {

void append_number(std::string& file, std::uint64_t value) {
  for (int byte = 0; byte < 8; ++byte)
    file.push_back(static_cast<char>(value >> (8 * byte)));
}

std::string sealed(std::string_view fields) {
  std::string file("TILEWRGT\1\0\0\0", 12);
  file += fields;
  const support::Hash128 hash = support::hash128(std::as_bytes(std::span(file)));
  append_number(file, hash.high);
  append_number(file, hash.low);
  return file;
}

/// The compile time is a floating-point number in memory: beyond 2^53 microseconds it does not come back exactly.
constexpr double exact_milliseconds = 9e12;

void check(std::string_view file) {
  const cache::Decoded decoded = cache::decode(file);
  if (decoded.state != cache::Decoding::good) {
    fuzz::require(!decoded.problem.empty(), "a refusal says why");
    return;
  }
  if (decoded.entry.compile_milliseconds < exact_milliseconds)
    fuzz::require(cache::encode(decoded.entry) == file, "encode(decode(file)) == file");
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0)
    return 0;
  const std::string_view rest = fuzz::text_of(data + 1, size - 1);
  if (data[0] % 2 == 0)
    check(rest);
  else
    check(sealed(rest));
  return 0;
}
