// Block lists in a file: refused with an error, or in order and within bounds. The input: query tiles, key tiles, then
// the file's header, a zero byte, and its data.
#include <cstring>
#include <string>

#include "block_lists.hpp"
#include "fuzz.hpp"

using namespace tilewright;

namespace {

void check_lists(const tools::HostLists& lists, std::int64_t query_tiles, std::int64_t key_tiles) {
  fuzz::require(lists.query_tiles == query_tiles, "there is a list for every query tile");
  for (std::int64_t batch = 0; batch < lists.batch; ++batch)
    for (std::int64_t head = 0; head < lists.heads; ++head)
      for (std::int64_t tile = 0; tile < query_tiles; ++tile) {
        std::int32_t last = -1;
        for (const std::int32_t entry : lists.list(batch, head, tile)) {
          fuzz::require(entry > last && entry < key_tiles, "lists are ascending and within the key tiles");
          last = entry;
        }
      }
}

void check(std::string_view text, std::int64_t query_tiles, std::int64_t key_tiles) try {
  const std::size_t header = std::min(text.find('\0'), text.size());
  const std::uint64_t length = header;
  std::string file(sizeof length, '\0');
  std::memcpy(file.data(), &length, sizeof length);
  file += text.substr(0, header);
  file += text.substr(std::min(header + 1, text.size()));
  const auto content = tools::parse_safetensors(std::as_bytes(std::span(file)), "input");
  check_lists(tools::read_lists(content, query_tiles, key_tiles), query_tiles, key_tiles);
} catch (const Error& error) {
  fuzz::check_error(error);
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  constexpr std::size_t numbers = 2;
  if (size >= numbers)
    check(fuzz::text_of(data + numbers, size - numbers), data[0] % 8, data[1] % 8);
  return 0;
}
