// The executor on the fake driver: what is loaded when, what a launch hands over, and what is refused.
#include <doctest/doctest.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include <fmt/format.h>

#include "counting_toolchain.hpp"
#include "driver/cuda_executor.hpp"
#include "driver/device_memory.hpp"
#include "fake_driver.hpp"
#include "support_temporary_folder.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

namespace {

Spec spec_with_head_dim(int head_dim) {
  Spec spec;
  spec.problem.head_dim = head_dim;
  spec.problem.text = Text::absent;
  spec.problem.edges = Edges::full;
  spec.schedule.family = Family::sm80;
  spec.schedule.block_q = 128;
  spec.schedule.block_k = 64;
  spec.schedule.stages = 2;
  spec.schedule.warps = 4;
  spec.architecture = {9, 0, 0};
  return spec;
}

struct Fixture {
  FakeDriver driver;
  TemporaryFolder folder;
  std::atomic<int> compiles{0};
  std::shared_ptr<const cuda::CudaDevice> device;
  std::shared_ptr<Executor> executor;

  explicit Fixture(int devices = 1, int ordinal = 0) {
    driver->devices.resize(static_cast<std::size_t>(devices));
    device = std::make_shared<const cuda::CudaDevice>(ordinal);
    executor = make_cuda_executor(device, CacheOptions{.folder = folder.path()}, {}, counting_toolchain(compiles));
  }
};

ErrorCode code_of(const std::function<void()>& action, std::string* problem = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (problem != nullptr)
      *problem = error.what();
    return error.code();
  }
  FAIL("nothing was thrown");
  return ErrorCode::internal;
}

} // namespace

TEST_CASE("a kernel is compiled, loaded at once and given all dynamic shared memory; a hit asks the driver nothing") {
  Fixture fixture;
  const auto kernel = fixture.executor->kernel(spec_with_head_dim(128), nullptr);
  CHECK(kernel->report().registers == 128);
  CHECK(kernel->origin() == KernelOrigin::compiled);
  CHECK(fixture.compiles == 1);
  CHECK(fixture.driver->libraries == 1);
  CHECK(fixture.driver->loaded_functions == 1);
  CHECK(fixture.driver->shared_byte_limits == std::vector<int>{227 * 1024 - static_shared_bytes});
  CHECK(fixture.driver->images.at(0).find("head_dim=128") != std::string::npos);

  fixture.driver->calls.clear();
  CHECK(fixture.executor->kernel(spec_with_head_dim(128), nullptr) == kernel);
  CHECK(fixture.driver->calls.empty());
  CHECK(fixture.executor->kernel(spec_with_head_dim(64), nullptr) != kernel);
  CHECK(fixture.driver->libraries == 2);
}

TEST_CASE("a second executor takes the kernel from the disk and says so") {
  Fixture fixture;
  (void)fixture.executor->kernel(spec_with_head_dim(128), nullptr);
  const auto second = make_cuda_executor(fixture.device, CacheOptions{.folder = fixture.folder.path()}, {},
                                         counting_toolchain(fixture.compiles));
  CHECK(second->kernel(spec_with_head_dim(128), nullptr)->origin() == KernelOrigin::disk);
  CHECK(fixture.compiles == 1);
}

TEST_CASE("libraries are unloaded and the context is released with the executor") {
  Fixture fixture;
  (void)fixture.executor->kernel(spec_with_head_dim(128), nullptr);
  fixture.executor.reset();
  CHECK(fixture.driver->libraries == 0);
  fixture.device.reset();
  CHECK(fixture.driver->retained_contexts[0] == 0);
}

TEST_CASE("threads that miss together load one kernel") {
  Fixture fixture;
  std::vector<std::thread> threads;
  std::vector<std::shared_ptr<const Kernel>> kernels(16);
  for (auto& kernel : kernels)
    threads.emplace_back([&] { kernel = fixture.executor->kernel(spec_with_head_dim(128), nullptr); });
  for (auto& thread : threads)
    thread.join();
  CHECK(std::count(kernels.begin(), kernels.end(), kernels.front()) == 16);
  CHECK(fixture.compiles == 1);
  CHECK(fixture.driver->libraries == 1);
}

TEST_CASE("during a capture a miss is an error and touches nothing; a prepared kernel is a hit") {
  Fixture fixture;
  int stream = 0;
  const auto prepared = fixture.executor->kernel(spec_with_head_dim(128), nullptr);
  fixture.driver->capture_status[&stream] = 1;
  CHECK(fixture.executor->kernel(spec_with_head_dim(128), &stream) == prepared);

  std::string message;
  CHECK(code_of([&] { (void)fixture.executor->kernel(spec_with_head_dim(64), &stream); }, &message) ==
        ErrorCode::capture_in_progress);
  CHECK(message.find("head_dim=64") != std::string::npos);
  CHECK(message.find("prepare()") != std::string::npos);
  CHECK(fixture.compiles == 1);
  CHECK(fixture.driver->libraries == 1);

  SUBCASE("an invalidated capture counts as one") {
    fixture.driver->capture_status[&stream] = 2;
    CHECK(code_of([&] { (void)fixture.executor->kernel(spec_with_head_dim(64), &stream); }) ==
          ErrorCode::capture_in_progress);
  }
  SUBCASE("so does the driver's refusal to look at the default stream while another is captured") {
    fixture.driver->failures["cuStreamIsCapturing"] = 906;
    CHECK(code_of([&] { (void)fixture.executor->kernel(spec_with_head_dim(64), nullptr); }) ==
          ErrorCode::capture_in_progress);
  }
  SUBCASE("reading back would synchronise, so it is refused too") {
    int value = 0;
    CHECK(code_of([&] { fixture.executor->read_back(&value, &value, sizeof value, &stream); }) ==
          ErrorCode::capture_in_progress);
  }
}

TEST_CASE("a launch hands over shape, stream and parameters, in the device's context") {
  Fixture fixture(2, 1);
  int stream = 0;
  const auto kernel = fixture.executor->kernel(spec_with_head_dim(128), nullptr);
  const std::uint64_t parameters = 0x0123456789ABCDEF;
  LaunchShape shape;
  shape.grid = {7, 5, 3};
  shape.block = {128, 1, 1};
  shape.shared_bytes = 65536;
  fixture.executor->launch(*kernel, shape, &parameters, sizeof parameters, &stream);
  REQUIRE(fixture.driver->launches.size() == 1);
  const fake_cuda::Launch& launch = fixture.driver->launches.front();
  CHECK(std::vector(launch.grid, launch.grid + 3) == std::vector<std::uint32_t>{7, 5, 3});
  CHECK(std::vector(launch.block, launch.block + 3) == std::vector<std::uint32_t>{128, 1, 1});
  CHECK(std::vector(launch.cluster, launch.cluster + 3) == std::vector<std::uint32_t>{0, 0, 0});
  CHECK(launch.shared_bytes == 65536);
  CHECK(launch.stream == &stream);
  CHECK(launch.context_device == 1);
  CHECK(launch.first_parameter_word == parameters);

  shape.cluster = {2, 1, 1};
  fixture.executor->launch(*kernel, shape, &parameters, sizeof parameters, nullptr);
  const fake_cuda::Launch& clustered = fixture.driver->launches.back();
  CHECK(std::vector(clustered.cluster, clustered.cluster + 3) == std::vector<std::uint32_t>{2, 1, 1});
  CHECK(fixture.driver.count("cuStreamSynchronize") == 0);
}

TEST_CASE("a launch that fails names its shape") {
  Fixture fixture;
  const auto kernel = fixture.executor->kernel(spec_with_head_dim(128), nullptr);
  fixture.driver->failures["cuLaunchKernelEx"] = 701;
  const std::uint64_t parameters = 0;
  std::string message;
  LaunchShape shape;
  shape.grid = {7, 1, 1};
  CHECK(code_of([&] { fixture.executor->launch(*kernel, shape, &parameters, sizeof parameters, nullptr); }, &message) ==
        ErrorCode::driver_error);
  CHECK(message.find("grid 7x1x1") != std::string::npos);
}

TEST_CASE("a cubin that the driver does not know names both versions and the package to install") {
  Fixture fixture;
  fixture.driver->driver_version = 12040;
  const auto executor =
      make_cuda_executor(std::make_shared<const cuda::CudaDevice>(0), CacheOptions{.folder = fixture.folder.path()}, {},
                         counting_toolchain(fixture.compiles));
  fixture.driver->failures["cuLibraryLoadData"] = 222;
  std::string message;
  CHECK(code_of([&] { (void)executor->kernel(spec_with_head_dim(128), nullptr); }, &message) ==
        ErrorCode::driver_error);
  CHECK(message.find("CUDA 12.4") != std::string::npos);
  CHECK(message.find("nvrtc 13.0") != std::string::npos);
  CHECK(message.find("nvidia-cuda-nvrtc-cu12") != std::string::npos);

  fixture.driver->failures.clear();
  CHECK(executor->kernel(spec_with_head_dim(128), nullptr) != nullptr); // the failure was not remembered
}

TEST_CASE("a kernel that fails after its library was loaded leaves no library behind") {
  Fixture fixture;
  fixture.driver->failures["cuFuncLoad"] = 2;
  CHECK(code_of([&] { (void)fixture.executor->kernel(spec_with_head_dim(128), nullptr); }) == ErrorCode::driver_error);
  CHECK(fixture.driver->libraries == 0);
}

TEST_CASE("pointers that a kernel cannot read are refused by name") {
  Fixture fixture(2, 0);
  const cuda::DeviceMemory here(fixture.device, 4096);
  const cuda::DeviceMemory there(std::make_shared<const cuda::CudaDevice>(1), 4096);
  const std::vector<float> host(16);
  fixture.executor->check_pointer(here.data(), "q");

  std::string message;
  CHECK(code_of([&] { fixture.executor->check_pointer(nullptr, "q"); }, &message) == ErrorCode::invalid_argument);
  CHECK(message.find("q is at 0x0: no memory") == 0);
  CHECK(code_of([&] { fixture.executor->check_pointer(there.data(), "k"); }, &message) == ErrorCode::invalid_argument);
  CHECK(message.find("memory of device 1") != std::string::npos);
  CHECK(code_of([&] { fixture.executor->check_pointer(host.data(), "v"); }, &message) == ErrorCode::invalid_argument);
  CHECK(message.find("host memory") != std::string::npos);
}

TEST_CASE("tensor maps are encoded with 128-byte swizzle, zero fill and 256-byte L2 promotion") {
  Fixture fixture;
  TensorMapRequest request;
  request.data = reinterpret_cast<void*>(0x10000);
  request.dtype = DataType::fp16;
  request.rank = 3;
  const std::uint64_t extents[] = {128, 80, 48}, strides[] = {0, 6144, 491520};
  const std::uint32_t box[] = {64, 8, 8};
  std::copy_n(extents, 3, request.extents);
  std::copy_n(strides, 3, request.strides_bytes);
  std::copy_n(box, 3, request.box);
  const TensorMap map = fixture.executor->encode(request);
  CHECK(map.words[0] == 0x10000);
  const fake_cuda::TensorMapCall& call = fixture.driver->tensor_maps.at(0);
  CHECK(call.type == 6);
  CHECK(call.extents == std::vector<std::uint64_t>{128, 80, 48});
  CHECK(call.strides == std::vector<std::uint64_t>{6144, 491520});
  CHECK(call.box == std::vector<std::uint32_t>{64, 8, 8});
  CHECK(call.interleave == 0);
  CHECK(call.swizzle == 3);
  CHECK(call.promotion == 3);
  CHECK(call.fill == 0);

  fixture.driver->failures["cuTensorMapEncodeTiled"] = 1;
  std::string message;
  CHECK(code_of([&] { (void)fixture.executor->encode(request); }, &message) == ErrorCode::driver_error);
  CHECK(message.find("[128, 80, 48]") != std::string::npos);
  request.rank = 6;
  CHECK(code_of([&] { (void)fixture.executor->encode(request); }) == ErrorCode::internal);
}

TEST_CASE("reading back waits for the stream") {
  Fixture fixture;
  cuda::DeviceMemory memory(fixture.device, 8);
  const std::uint64_t sent = 42;
  memory.copy_from_host(std::as_bytes(std::span(&sent, 1)));
  std::uint64_t received = 0;
  fixture.executor->read_back(&received, memory.data(), sizeof received, nullptr);
  CHECK(received == 42);
  CHECK(fixture.driver.count("cuStreamSynchronize") == 1);
}
