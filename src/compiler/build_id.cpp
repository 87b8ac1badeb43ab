#include "compiler/build_id.hpp"

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

// More than any real library has; a lying header must not make us allocate without end.
constexpr Elf64_Half most_segments = 256;
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

/// mapped: positions are addresses relative to where the library is mapped, else offsets in its file.
std::string read_build_id(const Reader& read, bool mapped) {
  Elf64_Ehdr header;
  if (!read_value(read, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != this_machine || header.e_phnum > most_segments ||
      header.e_phentsize != sizeof(Elf64_Phdr))
    return {};
  for (Elf64_Half index = 0; index < header.e_phnum; ++index) {
    Elf64_Phdr segment;
    if (!read_value(read, header.e_phoff + index * sizeof segment, segment))
      return {};
    if (segment.p_type != PT_NOTE || segment.p_filesz > most_note_bytes)
      continue;
    std::vector<std::byte> notes(segment.p_filesz);
    if (!read(mapped ? segment.p_vaddr : segment.p_offset, notes))
      return {};
    if (std::string found = build_id_in_notes(notes); !found.empty())
      return found;
  }
  return {};
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
