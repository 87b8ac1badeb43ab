#include "cache/entry.hpp"

#include <cmath>
#include <concepts>
#include <cstring>
#include <span>

#include <fmt/format.h>

namespace tilewright::cache {
namespace {

constexpr std::string_view magic = "TILEWRGT";
constexpr std::uint32_t format_version = 1;
constexpr std::size_t hash_bytes = 2 * sizeof(std::uint64_t);
constexpr double microseconds_per_millisecond = 1000;

class Writer {
public:
  template <std::unsigned_integral Number> void number(Number value) {
    for (std::size_t byte = 0; byte < sizeof value; ++byte)
      bytes_.push_back(static_cast<char>(value >> (8 * byte)));
  }
  void raw(std::string_view bytes) { bytes_.append(bytes); }
  void text(std::string_view text) {
    number(std::uint64_t{text.size()});
    raw(text);
  }
  void hash(const support::Hash128& hash) {
    number(hash.high);
    number(hash.low);
  }
  void count(std::int32_t value) { number(static_cast<std::uint32_t>(value)); }
  [[nodiscard]] std::string_view written() const { return bytes_; }
  std::string take() && { return std::move(bytes_); }

private:
  std::string bytes_;
};

/// Reads what Writer wrote. Past the end it gives zeros and remembers that.
class Reader {
public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  template <std::unsigned_integral Number> Number number() {
    const std::string_view bytes = raw(sizeof(Number));
    Number value = 0;
    for (std::size_t byte = 0; byte < bytes.size(); ++byte)
      value |= static_cast<Number>(Number{static_cast<unsigned char>(bytes[byte])} << (8 * byte));
    return value;
  }
  std::string_view raw(std::uint64_t size) {
    if (size > bytes_.size()) {
      complete_ = false;
      return {};
    }
    const std::string_view part = bytes_.substr(0, size);
    bytes_.remove_prefix(size);
    return part;
  }
  std::string_view text() { return raw(number<std::uint64_t>()); }
  support::Hash128 hash() {
    const auto high = number<std::uint64_t>();
    return {high, number<std::uint64_t>()};
  }
  std::int32_t count() { return static_cast<std::int32_t>(number<std::uint32_t>()); }
  /// All was there, and nothing is left.
  [[nodiscard]] bool finished() const { return complete_ && bytes_.empty(); }

private:
  std::string_view bytes_;
  bool complete_ = true;
};

support::Hash128 hash_of(std::string_view bytes) { return support::hash128(std::as_bytes(std::span(bytes))); }

} // namespace

std::string encode(const CacheEntry& entry) {
  Writer file;
  file.raw(magic);
  file.number(format_version);
  file.hash(entry.key);
  for (const std::string* text :
       {&entry.spec, &entry.kernel_name, &entry.compiler_identity, &entry.compiler_version, &entry.log})
    file.text(*text);
  for (const std::int32_t count :
       {entry.report.registers, entry.report.spill_bytes, entry.report.stack_bytes, entry.report.static_shared_bytes})
    file.count(count);
  file.number(static_cast<std::uint64_t>(std::llround(entry.compile_milliseconds * microseconds_per_millisecond)));
  file.text({reinterpret_cast<const char*>(entry.cubin.data()), entry.cubin.size()});
  file.hash(hash_of(file.written()));
  return std::move(file).take();
}

Decoded decode(std::string_view file) {
  if (file.size() < magic.size() + sizeof format_version + hash_bytes || !file.starts_with(magic))
    return {.state = Decoding::corrupt, .problem = "it is no cache entry", .entry = {}};
  Reader reader(file.substr(magic.size(), file.size() - magic.size() - hash_bytes));
  if (const auto version = reader.number<std::uint32_t>(); version != format_version)
    return {.state = Decoding::other_version,
            .problem = fmt::format("its format is version {}, this tilewright reads {}", version, format_version),
            .entry = {}};
  if (Reader(file.substr(file.size() - hash_bytes)).hash() != hash_of(file.substr(0, file.size() - hash_bytes)))
    return {.state = Decoding::corrupt, .problem = "its bytes were altered or cut off", .entry = {}};

  Decoded decoded{.state = Decoding::good, .problem = {}, .entry = {}};
  CacheEntry& entry = decoded.entry;
  entry.key = reader.hash();
  for (std::string* text :
       {&entry.spec, &entry.kernel_name, &entry.compiler_identity, &entry.compiler_version, &entry.log})
    *text = reader.text();
  for (std::int32_t* count : {&entry.report.registers, &entry.report.spill_bytes, &entry.report.stack_bytes,
                              &entry.report.static_shared_bytes})
    *count = reader.count();
  entry.compile_milliseconds = static_cast<double>(reader.number<std::uint64_t>()) / microseconds_per_millisecond;
  const std::string_view cubin = reader.text();
  entry.cubin.resize(cubin.size());
  if (!cubin.empty())
    std::memcpy(entry.cubin.data(), cubin.data(), cubin.size());
  entry.origin = KernelOrigin::disk;
  if (!reader.finished())
    return {.state = Decoding::corrupt, .problem = "its fields do not fill it", .entry = {}};
  return decoded;
}

} // namespace tilewright::cache
