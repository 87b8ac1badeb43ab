#include "emulator/emulated_kernel.hpp"

#include <cstdlib>
#include <system_error>

#include <dlfcn.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "emulator/host_compiler.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"
#include "support/hash.hpp"
#include <tilewright/error.hpp>

namespace tilewright::emulator {
namespace {

namespace fs = std::filesystem;

/// A folder that is removed at the end with all that it holds.
class TemporaryFolder {
public:
  explicit TemporaryFolder(const fs::path& parent) : path_((parent / "compile-XXXXXX").string()) {
    if (::mkdtemp(path_.data()) == nullptr)
      throw Error(
          ErrorCode::invalid_argument,
          fmt::format("cannot create a folder in '{}': {}", parent.string(), std::generic_category().message(errno)),
          "a folder that this user may write to is allowed", "set EmulatorOptions::folder or TILEWRIGHT_CACHE");
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] fs::path path() const { return path_; }

private:
  std::string path_;
};

std::string key_of(const std::string& source, const std::vector<std::string>& options) {
  support::FieldHasher hasher;
  hasher.field("source", source).field("options", fmt::format("{}", fmt::join(options, "\n")));
  hasher.field("host", host_identity());
  return support::to_string(hasher.digest());
}

} // namespace

EmulatedKernel::EmulatedKernel(std::string name, const fs::path& library, KernelOrigin origin, std::string log)
    : name_(std::move(name)), log_(std::move(log)), origin_(origin),
      library_(::dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL)) {
  if (library_ == nullptr)
    throw Error(ErrorCode::compile_failed, fmt::format("cannot open a compiled kernel: {}", ::dlerror()),
                "a shared library for this host is allowed", "remove it; it is then compiled anew");
  try {
    entry_ = reinterpret_cast<KernelEntry>(symbol("tilewright_emulated_thread"));
    most_threads_ = number("tilewright_emulated_threads");
    blocks_per_processor_ = number("tilewright_emulated_blocks");
    uses_copy_engine_ = ::dlsym(library_, "tilewright_emulated_proxies") != nullptr;
  } catch (...) {
    ::dlclose(library_);
    throw;
  }
}

EmulatedKernel::~EmulatedKernel() { ::dlclose(library_); }

void* EmulatedKernel::symbol(const char* symbol) const {
  if (void* const address = ::dlsym(library_, symbol))
    return address;
  throw Error(ErrorCode::compile_failed, fmt::format("{} has no {}", name_, symbol),
              "a kernel template declares its kernel by TILEWRIGHT_KERNEL", "report this as a fault of tilewright");
}

std::uint32_t EmulatedKernel::number(const char* name) const {
  return static_cast<std::uint32_t>(*static_cast<const int*>(symbol(name)));
}

fs::path KernelFolder::default_folder() {
  constexpr const char* name = "emulator";
  if (const auto cache = support::environment("TILEWRIGHT_CACHE"))
    return fs::path(*cache) / name;
  if (const auto cache = support::environment("XDG_CACHE_HOME"))
    return fs::path(*cache) / "tilewright" / name;
  if (const auto home = support::environment("HOME"))
    return fs::path(*home) / ".cache" / "tilewright" / name;
  throw Error(ErrorCode::invalid_argument, "neither TILEWRIGHT_CACHE nor XDG_CACHE_HOME nor HOME is set",
              "one of them says where compiled kernels are kept", "set TILEWRIGHT_CACHE to a folder");
}

std::shared_ptr<const EmulatedKernel> KernelFolder::open(const std::string& name, const std::string& source,
                                                         bool poison_registers) const {
  const std::vector<std::string> options = compile_options(poison_registers);
  support::create_private_folder(folder_);
  support::check_private_folder(folder_);
  const fs::path library = folder_ / (key_of(source, options) + ".so");
  if (fs::exists(library)) {
    try {
      return std::make_shared<EmulatedKernel>(name, library, KernelOrigin::disk, "");
    } catch (const Error&) {
      fs::remove(library); // damaged: compiled anew below
    }
  }
  const TemporaryFolder workshop(folder_);
  const fs::path text = workshop.path() / "kernel.cpp", compiled = workshop.path() / "kernel.so";
  support::write_atomically(text, std::as_bytes(std::span(source)));
  std::string log = compile_shared_library(text, compiled, options);
  fs::rename(compiled, library);
  return std::make_shared<EmulatedKernel>(name, library, KernelOrigin::compiled, std::move(log));
}

} // namespace tilewright::emulator
