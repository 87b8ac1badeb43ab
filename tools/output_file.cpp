#include "output_file.hpp"

#include <cerrno>
#include <fstream>
#include <system_error>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_path(const fs::path& path, std::string_view reason) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{} cannot be written: {}", path.string(), reason),
              "a file in a folder that exists and that you may write to is allowed",
              "create the folder, or choose another path");
}

bool is_special(const fs::path& path) {
  std::error_code none;
  const fs::file_status status = fs::status(path, none);
  return fs::exists(status) && !fs::is_regular_file(status);
}

fs::path folder_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

mode_t creation_mode() {
  const mode_t mask = ::umask(0);
  ::umask(mask);
  return 0666 & ~mask;
}

} // namespace

void check_output(const fs::path& path, std::string_view option) {
  if (path.empty())
    refuse_path(fmt::format("'' ({})", option), "the path is empty");
  if (fs::is_directory(path))
    refuse_path(path, "it is a folder");
  const fs::path& target = is_special(path) ? path : folder_of(path);
  if (::access(target.c_str(), W_OK) != 0)
    refuse_path(path, std::generic_category().message(errno));
}

void write_output(const fs::path& path, std::span<const std::byte> bytes) {
  check_output(path, "output");
  if (!is_special(path)) {
    const fs::path target = fs::is_symlink(path) ? fs::weakly_canonical(path) : path;
    support::write_atomically(target, bytes);
    if (::chmod(target.c_str(), creation_mode()) != 0)
      refuse_path(path, std::generic_category().message(errno));
    return;
  }
  std::ofstream stream(path, std::ios::binary);
  stream.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  stream.flush();
  if (!stream)
    refuse_path(path, std::generic_category().message(errno));
}

void write_output(const fs::path& path, std::string_view text) { write_output(path, std::as_bytes(std::span(text))); }

} // namespace tilewright::tools
