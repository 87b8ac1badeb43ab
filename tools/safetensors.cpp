#include "safetensors.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "output_file.hpp"
#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors' bytes are read as they lie in the file");

constexpr std::size_t length_bytes = 8;
constexpr std::uint64_t longest_header = 100'000'000; // the format's own limit
constexpr const char* metadata_name = "__metadata__";
constexpr std::array known_types{ElementType::bf16, ElementType::f16, ElementType::f32,
                                 ElementType::f64,  ElementType::i16, ElementType::i32,
                                 ElementType::i64,  ElementType::u8,  ElementType::boolean};

/// Refuses one file.
class Refusal {
public:
  explicit Refusal(std::string_view name) : name_(name) {}

  [[noreturn]] void operator()(const std::string& offence, std::string_view allowed) const {
    throw Error(ErrorCode::invalid_argument, fmt::format("{} is no valid .safetensors file: {}", name_, offence),
                std::string(allowed), "write the file again; it may be truncated or damaged");
  }

private:
  std::string_view name_;
};

struct Place {
  std::uint64_t begin, end;
  std::string name;
};

std::string_view header_of(std::span<const std::byte> file, const Refusal& refuse) {
  if (file.size() < length_bytes)
    refuse(fmt::format("it has {} bytes", file.size()), "8 bytes with the header's length stand first");
  std::uint64_t length = 0;
  std::memcpy(&length, file.data(), length_bytes);
  if (length > longest_header)
    refuse(fmt::format("its header is said to have {} bytes", length),
           fmt::format("a header of at most {} bytes is allowed", longest_header));
  if (length > file.size() - length_bytes)
    refuse(fmt::format("its header is said to have {} bytes, the file has {} after the length", length,
                       file.size() - length_bytes),
           "the header lies within the file");
  return {reinterpret_cast<const char*>(file.data()) + length_bytes, static_cast<std::size_t>(length)};
}

nlohmann::json parse_header(std::string_view text, const Refusal& refuse) {
  std::set<std::string> names;
  std::optional<std::string> repeated;
  const auto note_names = [&](int depth, nlohmann::json::parse_event_t event, const nlohmann::json& value) {
    if (event == nlohmann::json::parse_event_t::key && depth == 1 && !names.insert(value.get<std::string>()).second)
      repeated = value.get<std::string>();
    return true;
  };
  constexpr bool throws = false;
  nlohmann::json header = nlohmann::json::parse(text, note_names, throws);
  if (!header.is_object())
    refuse("its header is no JSON object", "a JSON object with one member a tensor is allowed");
  if (repeated)
    refuse(fmt::format("it names '{}' twice", *repeated), "each tensor stands once");
  return header;
}

std::map<std::string, std::string> parse_metadata(const nlohmann::json& value, const Refusal& refuse) {
  std::map<std::string, std::string> metadata;
  if (!value.is_object())
    refuse("its __metadata__ is no JSON object", "an object of strings is allowed");
  for (const auto& [name, text] : value.items()) {
    if (!text.is_string())
      refuse(fmt::format("its metadata '{}' is no string", name), "an object of strings is allowed");
    metadata.emplace(name, text.get<std::string>());
  }
  return metadata;
}

ElementType parse_type(const nlohmann::json& entry, const std::string& name, const Refusal& refuse) {
  const auto found = entry.find("dtype");
  if (found != entry.end() && found->is_string())
    for (const ElementType type : known_types)
      if (found->get_ref<const std::string&>() == to_string(type))
        return type;
  refuse(fmt::format("'{}' has the dtype {}", name, found == entry.end() ? "of none" : found->dump()),
         "BF16, F16, F32, F64, I16, I32, I64, U8 and BOOL are allowed");
}

/// The unsigned integers of a member; none where it is no array of them.
std::optional<std::vector<std::uint64_t>> parse_numbers(const nlohmann::json& entry, const char* member) {
  const auto found = entry.find(member);
  if (found == entry.end() || !found->is_array())
    return std::nullopt;
  std::vector<std::uint64_t> numbers;
  for (const nlohmann::json& number : *found) {
    if (!number.is_number_unsigned())
      return std::nullopt;
    numbers.push_back(number.get<std::uint64_t>());
  }
  return numbers;
}

/// Shape and bytes of one tensor; its place goes to places.
HostTensor parse_tensor(const std::string& name, const nlohmann::json& entry, std::span<const std::byte> data,
                        std::vector<Place>& places, const Refusal& refuse) {
  if (!entry.is_object())
    refuse(fmt::format("'{}' is no JSON object", name), "dtype, shape and data_offsets describe a tensor");
  HostTensor tensor;
  tensor.type = parse_type(entry, name, refuse);
  const auto shape = parse_numbers(entry, "shape");
  if (!shape)
    refuse(fmt::format("'{}' has no shape", name), "an array of integers from 0 up is allowed");
  const auto offsets = parse_numbers(entry, "data_offsets");
  if (!offsets || offsets->size() != 2)
    refuse(fmt::format("'{}' has no data_offsets", name), "an array of two integers from 0 up is allowed");

  constexpr auto most = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());
  std::uint64_t bytes = size_of(tensor.type);
  for (const std::uint64_t extent : *shape) {
    if (extent > most || (extent != 0 && bytes > most / extent))
      refuse(fmt::format("the shape of '{}' overflows", name), "a tensor has fewer than 2^63 bytes");
    bytes *= extent;
    tensor.shape.push_back(static_cast<std::int64_t>(extent));
  }
  const auto [begin, end] = std::pair((*offsets)[0], (*offsets)[1]);
  if (begin > end || end > data.size())
    refuse(fmt::format("'{}' lies at {} to {} of {} bytes", name, begin, end, data.size()),
           "tensors lie within the file");
  if (end - begin != bytes)
    refuse(fmt::format("'{}' has {} bytes, its shape {} of {} needs {}", name, end - begin, shape_text(tensor.shape),
                       to_string(tensor.type), bytes),
           "as many bytes as the shape needs");
  places.push_back({begin, end, name});
  const auto part = data.subspan(begin, bytes);
  tensor.bytes.assign(part.begin(), part.end());
  return tensor;
}

void check_places(std::vector<Place>& places, std::size_t data_bytes, const Refusal& refuse) {
  std::sort(places.begin(), places.end(),
            [](const Place& a, const Place& b) { return std::pair(a.begin, a.end) < std::pair(b.begin, b.end); });
  std::uint64_t expected = 0;
  for (const Place& place : places) {
    if (place.begin != expected)
      refuse(fmt::format("'{}' begins at {}, the tensor before it ends at {}", place.name, place.begin, expected),
             "tensors lie one after the other, without overlap or gap");
    expected = place.end;
  }
  if (expected != data_bytes)
    refuse(fmt::format("its tensors end at {} of {} bytes", expected, data_bytes), "tensors fill the file");
}

} // namespace

Safetensors parse_safetensors(std::span<const std::byte> file, std::string_view name) {
  const Refusal refuse(name);
  const std::string_view header_text = header_of(file, refuse);
  const nlohmann::json header = parse_header(header_text, refuse);
  const auto data = file.subspan(length_bytes + header_text.size());
  Safetensors content;
  std::vector<Place> places;
  for (const auto& [member, value] : header.items()) {
    if (member == metadata_name)
      content.metadata = parse_metadata(value, refuse);
    else
      content.tensors.emplace(member, parse_tensor(member, value, data, places, refuse));
  }
  check_places(places, data.size(), refuse);
  return content;
}

Safetensors read_safetensors(const std::filesystem::path& path) {
  const std::string file = support::read_file(path);
  return parse_safetensors(std::as_bytes(std::span(file)), path.string());
}

std::string format_safetensors(const Safetensors& content) {
  nlohmann::json header = nlohmann::json::object();
  if (!content.metadata.empty())
    header[metadata_name] = content.metadata;
  std::size_t end = 0;
  for (const auto& [name, tensor] : content.tensors) {
    const std::size_t begin = end;
    end += tensor.bytes.size();
    header[name] = {{"dtype", to_string(tensor.type)}, {"shape", tensor.shape}, {"data_offsets", {begin, end}}};
  }
  std::string text = header.dump();
  text.resize((text.size() + length_bytes - 1) / length_bytes * length_bytes, ' '); // so that the data is aligned
  const std::uint64_t length = text.size();
  std::string file(length_bytes, '\0');
  std::memcpy(file.data(), &length, length_bytes);
  file.reserve(length_bytes + text.size() + end);
  file += text;
  for (const auto& [name, tensor] : content.tensors)
    file.append(reinterpret_cast<const char*>(tensor.bytes.data()), tensor.bytes.size());
  return file;
}

void write_safetensors(const std::filesystem::path& path, const Safetensors& content) {
  write_output(path, format_safetensors(content));
}

} // namespace tilewright::tools
