#include "compiler/nvrtc.hpp"

#include <algorithm>
#include <chrono>
#include <mutex>

#include <pthread.h>

#include <fmt/format.h>

#include "compiler/compile_log.hpp"
#include "compiler/nvrtc_api.hpp"
#include <tilewright/error.hpp>

namespace tilewright::compiler {
namespace {

/// The process's one compiler. Two locks, so that looking up its identity never waits for a compile.
struct Compiler {
  std::mutex choice_lock;
  int driver_major = 0;
  bool searched = false;
  std::vector<Candidate> candidates;
  std::optional<Candidate> choice;

  std::mutex compile_lock; // taken before choice_lock
  std::optional<NvrtcApi> api;

  const std::optional<Candidate>& choose() { // with choice_lock
    if (!searched) {
      candidates = nvrtc_candidates();
      choice = choose_nvrtc(candidates, driver_major);
      searched = true;
    }
    return choice;
  }

  const NvrtcApi& open(); // with compile_lock
};

Compiler& compiler() {
  // Never destroyed: threads may still compile while the process ends.
  static Compiler& instance = []() -> Compiler& {
    static Compiler* const made = new Compiler;
    ::pthread_atfork(
        [] {
          compiler().compile_lock.lock();
          compiler().choice_lock.lock();
        },
        [] {
          compiler().choice_lock.unlock();
          compiler().compile_lock.unlock();
        },
        [] {
          compiler().choice_lock.unlock();
          compiler().compile_lock.unlock();
        });
    return *made;
  }();
  return instance;
}

std::string identity_of(std::string_view build_id) { return fmt::format("build-id {}", build_id); }

const NvrtcApi& Compiler::open() {
  std::filesystem::path path;
  {
    const std::lock_guard guard(choice_lock);
    if (!choose()) {
      std::string looked_at;
      for (const Candidate& candidate : candidates)
        looked_at += fmt::format("\n  {}: {}", candidate.origin, candidate.path.string());
      throw Error(
          ErrorCode::unsupported, fmt::format("no libnvrtc was found; looked at:{}", looked_at),
          fmt::format("NVRTC {} or later is needed to compile what the cache does not have", to_string(oldest_nvrtc)),
          "install nvidia-cuda-nvrtc with pip or the CUDA toolkit, or name the library in $TILEWRIGHT_NVRTC");
    }
    path = choice->path;
  }
  if (!api || api->path != path)
    api = open_nvrtc(path);
  return *api;
}

/// Destroys its program.
class Program {
public:
  Program(const NvrtcApi& api, const codegen::GeneratedSource& source) : api_(api) {
    require(api.create_program(&program_, source.text.c_str(), program_name, 0, nullptr, nullptr), "create a program");
  }
  ~Program() { api_.destroy_program(&program_); }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  NvrtcResult compile(const std::vector<std::string>& options) {
    std::vector<const char*> pointers;
    pointers.reserve(options.size());
    for (const std::string& option : options)
      pointers.push_back(option.c_str());
    return api_.compile_program(program_, static_cast<int>(pointers.size()), pointers.data());
  }

  [[nodiscard]] std::string log() const {
    std::size_t size = 0; // with the terminating zero
    require(api_.get_log_size(program_, &size), "give the size of its log");
    std::string log(size, '\0');
    require(api_.get_log(program_, log.data()), "give its log");
    log.resize(log.find_last_not_of(std::string_view("\0\n", 2)) + 1);
    return log;
  }

  [[nodiscard]] std::vector<std::byte> cubin() const {
    std::size_t size = 0;
    require(api_.get_cubin_size(program_, &size), "give the size of the cubin");
    std::vector<std::byte> cubin(size);
    require(api_.get_cubin(program_, reinterpret_cast<char*>(cubin.data())), "give the cubin");
    return cubin;
  }

private:
  void require(NvrtcResult result, std::string_view action) const {
    if (result != nvrtc_success)
      throw Error(
          ErrorCode::compile_failed,
          fmt::format("NVRTC {} could not {}: {}", to_string(api_.version), action, api_.get_error_string(result)),
          "NVRTC must answer", "check the machine's memory and the NVRTC installation");
  }

  const NvrtcApi& api_;
  NvrtcProgram program_ = nullptr;
};

} // namespace

std::vector<std::string> compile_options(const Architecture& architecture) {
  return {fmt::format("--gpu-architecture={}", to_string(architecture)), "--std=c++20", "--ptxas-options=-v"};
}

std::optional<std::string> identity() {
  Compiler& process = compiler();
  const std::lock_guard guard(process.choice_lock);
  const auto& choice = process.choose();
  return choice ? std::optional(identity_of(choice->build_id)) : std::nullopt;
}

void set_driver_major(int major) {
  Compiler& process = compiler();
  const std::lock_guard guard(process.choice_lock);
  if (process.driver_major != major) {
    process.driver_major = major;
    process.searched = false;
  }
}

CompiledKernel compile(const codegen::GeneratedSource& source, const Architecture& architecture) {
  Compiler& process = compiler();
  const std::lock_guard guard(process.compile_lock);
  const NvrtcApi& api = process.open();
  require_architecture(architecture, api.version, api.architectures);

  const auto start = std::chrono::steady_clock::now();
  Program program(api, source);
  std::vector<std::string> options = compile_options(architecture);
  if (api.version >= first_nvrtc_with_cache)
    options.push_back("--no-cache");
  const NvrtcResult result = program.compile(options);
  CompiledKernel kernel;
  kernel.log = program.log();
  if (result != nvrtc_success)
    throw Error(ErrorCode::compile_failed,
                fmt::format("NVRTC {} refused the kernel {} for {} ({})", to_string(api.version), source.kernel_name,
                            to_string(architecture), api.get_error_string(result)),
                "generated sources must compile",
                fmt::format("report this as a fault of tilewright. The compiler's log:\n{}", kernel.log));
  kernel.cubin = program.cubin();
  kernel.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  kernel.report = read_compile_log(kernel.log, source.kernel_name, architecture);
  kernel.compiler_identity = identity_of(api.build_id);
  kernel.compiler_version = to_string(api.version);
  return kernel;
}

Description describe() {
  Compiler& process = compiler();
  const std::lock_guard guard(process.compile_lock);
  Description description;
  try {
    const NvrtcApi& api = process.open();
    description.path = api.path.string();
    description.version = to_string(api.version);
    description.build_id = api.build_id;
    description.architectures = api.architectures;
  } catch (const Error& error) {
    description.problem = error.what();
  }
  const std::lock_guard choice_guard(process.choice_lock);
  description.candidates = process.candidates;
  return description;
}

} // namespace tilewright::compiler
