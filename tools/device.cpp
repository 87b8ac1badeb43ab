#include "device.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <span>
#include <utility>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "driver/cuda_executor.hpp"
#include "reference/tensor.hpp"
#include "support/text.hpp"
#include <tilewright/reference.hpp>
#ifdef TILEWRIGHT_HAS_EMULATOR
#include <tilewright/emulator.hpp>
#endif

namespace tilewright::tools {
namespace {

/// The ordinal of "cuda:N"; -1 for "cuda".
int parse_ordinal(std::string_view device) {
  constexpr std::string_view prefix = "cuda:";
  constexpr int most_devices = 1024;
  if (device == "cuda")
    return -1;
  if (!device.starts_with(prefix))
    throw UsageError(fmt::format("--device is '{}'", device), "auto, cuda, cuda:N, emulator and reference are allowed",
                     "choose one of them");
  try {
    return static_cast<int>(support::parse_integer(device.substr(prefix.size()), "--device cuda:N", 0, most_devices));
  } catch (const Error& error) {
    throw UsageError(error);
  }
}

} // namespace

void DeviceChoice::add_to(CLI::App& command) {
  command.add_option("--device", device, "auto, cuda, cuda:N, emulator or reference")->capture_default_str();
  command.add_option("--seed", seed, "Order of threads and copies in the emulator")->capture_default_str();
  command.add_option("--emulate", emulated, "Architecture whose kernels the emulator runs")->capture_default_str();
  command.add_option("--schedule", schedule, "Insist on a schedule, as `tilewright compile` prints it");
  command.add_option("--key-schedule", key_schedule, "The same for dk and dv");
  command.add_option("--query-schedule", query_schedule, "The same for dq");
  cache.add_to(command);
}

Device::Device(const DeviceChoice& choice) {
  RuntimeOptions options;
  options.cache = choice.cache.options();
  options.schedule = schedule_option(choice.schedule);
  options.backward_key_schedule = schedule_option(choice.key_schedule);
  options.backward_query_schedule = schedule_option(choice.query_schedule);
  options.on_message = print_warning;
  if (choice.device == "auto")
    open_gpu_or_emulator(choice, options);
  else if (choice.device == "emulator")
    open_emulator(choice, options);
  else if (choice.device != "reference")
    open_gpu(parse_ordinal(choice.device), options);
}

void Device::open_gpu_or_emulator(const DeviceChoice& choice, const RuntimeOptions& options) {
  try {
    open_gpu(-1, options);
  } catch (const Error& error) {
    if (error.code() != ErrorCode::no_device)
      throw;
    open_emulator(choice, options);
  }
}

void Device::open_gpu(int ordinal, const RuntimeOptions& options) {
  auto device = std::make_shared<const cuda::CudaDevice>(ordinal);
  executor_ = make_cuda_executor(device, options.cache, options.on_message);
  runtime_.emplace(executor_, options);
  name_ = fmt::format("{} (cuda:{})", device->description().name, device->description().ordinal);
  cuda_ = std::move(device);
}

#ifdef TILEWRIGHT_HAS_EMULATOR
void Device::open_emulator(const DeviceChoice& choice, const RuntimeOptions& options) {
  EmulatorOptions emulator;
  emulator.seed = choice.seed;
  emulator.architecture = architectures_option(choice.emulated).front();
  if (!choice.cache.folder.empty())
    emulator.folder = choice.cache.folder / "emulator";
  executor_ = make_emulator(emulator);
  runtime_.emplace(executor_, options);
  name_ = fmt::format("emulator ({}, seed {})", to_string(emulator.architecture), emulator.seed);
}
#else
void Device::open_emulator(const DeviceChoice&, const RuntimeOptions&) {
  throw Error(ErrorCode::no_device, "there is no usable GPU, and this build has no emulator",
              "cuda:N and reference are allowed in this build",
              "use --device reference, or build with -DTILEWRIGHT_EMULATOR=ON");
}
#endif

TensorView Device::place(const TensorView& host) {
  if (cuda_ == nullptr || host.data == nullptr)
    return host;
  const std::size_t bytes = view_bytes(host);
  cuda::DeviceMemory& memory = memory_.emplace_back(cuda_, bytes);
  memory.copy_from_host({static_cast<const std::byte*>(host.data), bytes});
  TensorView placed = host;
  placed.data = memory.data();
  return placed;
}

AttentionForward Device::place(const AttentionForward& host) {
  AttentionForward placed = host;
  for (TensorView* view : {&placed.q, &placed.k, &placed.v, &placed.out})
    *view = place(*view);
  if (placed.lse)
    placed.lse = place(*placed.lse);
  return placed;
}

Pattern Device::place(const Pattern& host) {
  const auto* lists = std::get_if<BlockList>(&host);
  if (lists == nullptr)
    return host;
  BlockList placed = *lists;
  placed.counts = place(placed.counts);
  placed.indices = place(placed.indices);
  for (auto* sizes : {&placed.query_sizes, &placed.key_sizes})
    if (*sizes)
      *sizes = place(**sizes);
  return placed;
}

VideoSparseAttention Device::place(const VideoSparseAttention& host) {
  VideoSparseAttention placed = host;
  for (TensorView* view : {&placed.q, &placed.k, &placed.v, &placed.out})
    *view = place(*view);
  for (std::optional<TensorView>* view : {&placed.gate, &placed.lse, &placed.fine})
    if (*view)
      *view = place_or_allocate(**view);
  if (!runtime_)
    return placed;
  placed.workspace_bytes = runtime_->workspace_of(placed).bytes;
  placed.workspace = allocate(placed.workspace_bytes);
  return placed;
}

cuda::DeviceMemory& Device::owner_of(const TensorView& placed) {
  const auto owner = std::find_if(memory_.begin(), memory_.end(),
                                  [&](const cuda::DeviceMemory& memory) { return memory.data() == placed.data; });
  if (owner == memory_.end())
    throw Error(ErrorCode::internal, "a tensor is copied that was not placed", "placed tensors are copied",
                "report this as a fault of tilewright");
  return *owner;
}

void Device::collect(const TensorView& placed, const TensorView& host) {
  if (cuda_ == nullptr)
    return;
  owner_of(placed).copy_to_host({static_cast<std::byte*>(host.data), view_bytes(host)});
}

void Device::refresh(const TensorView& placed, const TensorView& host) {
  if (cuda_ == nullptr)
    return;
  owner_of(placed).copy_from_host({static_cast<const std::byte*>(host.data), view_bytes(host)});
}

Preparation Device::prepare(const AttentionForward& call, const Pattern& pattern) {
  const Problem problem = Runtime::problem_of(call, pattern);
  Preparation preparation{to_string(problem), "", false};
  if (runtime_) {
    const Spec spec = runtime_->spec_of(problem);
    const auto kernel = runtime_->executor().kernel(spec, nullptr);
    preparation.architecture = to_string(spec.architecture);
    preparation.cached = kernel->origin() != KernelOrigin::compiled;
  }
  return preparation;
}

Preparation Device::prepare(const VideoSparseAttention& call) {
  const Problem problem = Runtime::problem_of(call);
  Preparation preparation{to_string(problem), "", false};
  if (!runtime_)
    return preparation;
  preparation.cached = true;
  for (const Problem& part : closed_variants(problem)) { // the fine branch's kernel is the last
    const Spec spec = runtime_->spec_of(part);
    const auto kernel = runtime_->executor().kernel(spec, nullptr);
    preparation.architecture = to_string(spec.architecture);
    preparation.cached = preparation.cached && kernel->origin() != KernelOrigin::compiled;
  }
  return preparation;
}

void Device::video_sparse_attention(const VideoSparseAttention& call) {
  if (runtime_) {
    runtime_->video_sparse_attention(call);
    return;
  }
  const reference::VideoSparseResult result = reference::video_sparse_attention(call);
  reference::write_tensor(call.out, call.layout, result.out);
  if (call.lse)
    reference::write_lse(*call.lse, result.lse);
  if (call.fine)
    reference::write_tensor(*call.fine, call.layout, result.fine);
}

void Device::attention_forward(const AttentionForward& call, const Pattern& pattern) {
  if (runtime_)
    runtime_->attention_forward(call, pattern);
  else
    reference::attention_forward_into(call, pattern);
}

double Device::measure(const std::function<void()>& work) const {
  if (cuda_ != nullptr) {
    cuda::Stopwatch stopwatch(cuda_);
    stopwatch.start();
    work();
    stopwatch.stop();
    return stopwatch.milliseconds();
  }
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
}

} // namespace tilewright::tools
