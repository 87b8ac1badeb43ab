#include "emulator/emulator_executor.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include "codegen/source.hpp"
#include "emulator/runtime.cuh"
#include "emulator/tensor_map.hpp"
#include "schedule/feasibility.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace emulator {
namespace {

// Few, so that kernels whose blocks take one piece of work after the other do so in small problems too. A fixed number,
// so that a launch is the same on every host.
constexpr std::int32_t multiprocessors = 4;

constexpr std::uint32_t most_blocks_of_cluster = 8; // portable: CUDA C++ Programming Guide, "Thread Block Clusters"

/// What the launch bounds leave each thread, as ptxas allots where a kernel uses setmaxnreg.
std::uint32_t registers_at_start(const EmulatedKernel& kernel) {
  constexpr std::uint32_t step = 8;
  const std::uint32_t share =
      schedule::registers_in_all / std::max(kernel.most_threads() * kernel.blocks_per_processor(), 1U);
  return std::min<std::uint32_t>(share, schedule::registers_per_thread_limit) / step * step;
}

DeviceDescription describe(const Architecture& architecture) {
  const auto limits = schedule::limits_of(architecture);
  if (!limits)
    throw Error(ErrorCode::unsupported, fmt::format("the emulator was asked for {}", to_string(architecture)),
                "an architecture that kernels are compiled for: sm_80 and newer", "set EmulatorOptions::architecture");
  return {"emulator", architecture, multiprocessors, limits->shared_per_block, 0};
}

} // namespace

EmulatorExecutor::EmulatorExecutor(EmulatorOptions options)
    : options_(std::move(options)), device_(describe(options_.architecture)),
      folder_(options_.folder.empty() ? KernelFolder::default_folder() : options_.folder) {}

std::shared_ptr<const Kernel> EmulatorExecutor::kernel(const Spec& spec, Stream /*stream*/) {
  if (auto loaded = kernels_.find(spec))
    return loaded;
  const codegen::GeneratedSource source = codegen::generate(spec, codegen::Target::emulator);
  auto kernel = folder_.open(to_string(spec), source.text, options_.check_initialised);
  ++(kernel->origin() == KernelOrigin::compiled ? compiles_ : disk_hits_);
  kernels_.insert(spec, kernel);
  return kernel;
}

CacheStatistics EmulatorExecutor::cache_statistics() const {
  CacheStatistics statistics;
  statistics.disk_hits = disk_hits_;
  statistics.compiles = compiles_;
  return statistics;
}

std::shared_ptr<const EmulatedKernel> EmulatorExecutor::kernel_from_source(const std::string& name,
                                                                           const std::string& source) const {
  return folder_.open(name, source, options_.check_initialised);
}

void EmulatorExecutor::launch(const Kernel& kernel, const LaunchShape& shape, const void* parameters,
                              std::size_t /*parameter_bytes*/, Stream /*stream*/) {
  const auto& emulated = dynamic_cast<const EmulatedKernel&>(kernel);
  const auto one_dimensional = [](const Dim3& extents) { return extents.x > 0 && extents.y == 1 && extents.z == 1; };
  if (!one_dimensional(shape.grid) || !one_dimensional(shape.block) || !one_dimensional(shape.cluster) ||
      shape.cluster.x > most_blocks_of_cluster || shape.grid.x % shape.cluster.x != 0 ||
      shape.block.x > emulated.most_threads() || shape.block.x % warp_lanes != 0 ||
      shape.shared_bytes > static_cast<std::uint32_t>(device_.shared_bytes_per_block))
    throw Error(
        ErrorCode::internal,
        fmt::format("{} is launched with grid {}x{}x{}, block {}x{}x{}, cluster {}x{}x{} and {} bytes of shared "
                    "memory",
                    emulated.name(), shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x, shape.block.y,
                    shape.block.z, shape.cluster.x, shape.cluster.y, shape.cluster.z, shape.shared_bytes),
        fmt::format("one dimension, whole clusters of at most {} thread blocks, whole warps and at most {} "
                    "threads (the launch bounds), {} bytes are allowed",
                    most_blocks_of_cluster, emulated.most_threads(), device_.shared_bytes_per_block),
        "report this as a fault of tilewright");
  LaunchPlan plan;
  plan.kernel = emulated.name();
  plan.entry = emulated.entry();
  plan.arguments = parameters;
  plan.blocks = shape.grid.x;
  plan.cluster = shape.cluster.x;
  plan.threads_per_block = shape.block.x;
  plan.registers = registers_at_start(emulated);
  plan.copy_engine = emulated.uses_copy_engine();
  plan.shared_bytes = shape.shared_bytes;
  plan.seed = options_.seed;
  plan.completion = options_.completion;
  plan.check_initialised = options_.check_initialised;
  plan.check_races = options_.check_races;
  const int all_cores = static_cast<int>(std::thread::hardware_concurrency());
  const EmulatorCounters counters = run_launch(plan, pool_, options_.threads > 0 ? options_.threads : all_cores);
  if (options_.counted)
    options_.counted(plan.kernel, counters);
}

TensorMap EmulatorExecutor::encode(const TensorMapRequest& request) { return encode_box_map(request); }

void EmulatorExecutor::check_pointer(const void* pointer, const char* name) const {
  // msync says ENOMEM where no memory is mapped, and changes nothing in anonymous memory.
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const std::uintptr_t start = reinterpret_cast<std::uintptr_t>(pointer) / page * page;
  if (pointer != nullptr && (::msync(reinterpret_cast<void*>(start), page, MS_ASYNC) == 0 || errno != ENOMEM))
    return;
  throw Error(ErrorCode::invalid_argument,
              fmt::format("{} is at {}, {}", name, fmt::ptr(pointer),
                          pointer == nullptr ? "a null pointer" : "where this process has no memory"),
              "memory of this process is allowed: the emulator runs on the CPU",
              fmt::format("pass host memory as {}", name));
}

void EmulatorExecutor::read_back(void* host, const void* device, std::size_t bytes, Stream /*stream*/) {
  std::memcpy(host, device, bytes);
}

} // namespace emulator

std::shared_ptr<Executor> make_emulator(const EmulatorOptions& options) {
  return std::make_shared<emulator::EmulatorExecutor>(options);
}

} // namespace tilewright
