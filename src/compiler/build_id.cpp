#include "compiler/build_id.hpp"

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include <dlfcn.h>
#include <elf.h>
#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

#include "support/files.hpp"

namespace tilewright::compiler {
namespace {

#if defined(__x86_64__)
constexpr Elf64_Half this_machine = EM_X86_64;
#elif defined(__aarch64__)
constexpr Elf64_Half this_machine = EM_AARCH64;
#else
#error "NVRTC exists for x86-64 and AArch64 only"
#endif

// More than any real library has; a lying header must not make us read or allocate without end.
constexpr Elf64_Half most_headers = 256;
constexpr Elf64_Xword most_note_bytes = 65536;

/// Fills the bytes from a position in the file or in memory; false where it cannot.
using Reader = std::function<bool(std::uint64_t position, std::span<std::byte> bytes)>;

template <typename Value> bool read_value(const Reader& read, std::uint64_t position, Value& value) {
  return read(position, std::as_writable_bytes(std::span(&value, 1)));
}

/// The build id among the notes of one segment. GNU's notes are packed to 4 bytes whatever the segment's alignment
/// says.
std::string build_id_in_notes(std::span<const std::byte> notes) {
  constexpr std::size_t packing = 4;
  const auto padded = [](std::size_t size) { return (size + packing - 1) / packing * packing; };
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, notes.data(), sizeof header);
    notes = notes.subspan(sizeof header);
    const std::size_t name_bytes = padded(header.n_namesz), value_bytes = padded(header.n_descsz);
    if (name_bytes > notes.size() || value_bytes > notes.size() - name_bytes)
      return {};
    const std::string_view name(reinterpret_cast<const char*>(notes.data()), header.n_namesz);
    if (header.n_type == NT_GNU_BUILD_ID && name == std::string_view(ELF_NOTE_GNU, sizeof ELF_NOTE_GNU)) {
      std::string digits;
      for (const std::byte byte : notes.subspan(name_bytes, header.n_descsz))
        digits += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
      return digits;
    }
    notes = notes.subspan(name_bytes + value_bytes);
  }
  return {};
}

/// A range of notes, from a segment or a section header.
std::string build_id_at(const Reader& read, std::uint64_t position, std::uint64_t size) {
  if (size > most_note_bytes)
    return {};
  std::vector<std::byte> notes(size);
  return read(position, notes) ? build_id_in_notes(notes) : std::string{};
}

/// mapped: positions are addresses relative to where the library is mapped, else offsets in its file.
std::string read_build_id(const Reader& read, bool mapped) {
  Elf64_Ehdr header;
  if (!read_value(read, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != this_machine)
    return {};
  std::string found;
  Elf64_Phdr segment;
  for (std::uint64_t index = 0; index < std::min(header.e_phnum, most_headers) && found.empty(); ++index)
    if (read_value(read, header.e_phoff + index * sizeof segment, segment) && segment.p_type == PT_NOTE)
      found = build_id_at(read, mapped ? segment.p_vaddr : segment.p_offset, segment.p_filesz);
  // The wheels of NVRTC 12.4 and 12.8 were edited after linking: their segment table points beside the notes, the
  // section table (which is in the file only) does not.
  Elf64_Shdr section;
  for (std::uint64_t index = 0; !mapped && index < std::min(header.e_shnum, most_headers) && found.empty(); ++index)
    if (read_value(read, header.e_shoff + index * sizeof section, section) && section.sh_type == SHT_NOTE)
      found = build_id_at(read, section.sh_offset, section.sh_size);
  return found;
}

} // namespace

std::string build_id_of_file(const std::filesystem::path& path) {
  const support::FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!file)
    return {};
  return read_build_id(
      [&](std::uint64_t position, std::span<std::byte> bytes) {
        return ::pread(file.get(), bytes.data(), bytes.size(), static_cast<::off_t>(position)) ==
               static_cast<::ssize_t>(bytes.size());
      },
      false);
}

std::string build_id_of_loaded(const void* function) {
  ::Dl_info info{};
  if (::dladdr(function, &info) == 0)
    return {};
  return read_build_id(
      [&](std::uint64_t position, std::span<std::byte> bytes) {
        std::memcpy(bytes.data(), static_cast<const std::byte*>(info.dli_fbase) + position, bytes.size());
        return true;
      },
      true);
}

} // namespace tilewright::compiler
