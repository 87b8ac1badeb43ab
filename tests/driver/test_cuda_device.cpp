// Which device is chosen, and its memory.
#include <doctest/doctest.h>

#include <vector>

#include "driver/device_memory.hpp"
#include "fake_driver.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

TEST_CASE("a device is described by its own facts and its primary context is held while it is in use") {
  FakeDriver driver;
  driver->devices = {
      {}, {.name = "Fake RTX", .major = 8, .minor = 9, .multiprocessors = 76, .shared_bytes_per_block = 101376}};
  {
    const cuda::CudaDevice device(1);
    CHECK(device.description().name == "Fake RTX");
    CHECK(device.description().architecture == Architecture{8, 9, 0});
    CHECK(device.description().multiprocessors == 76);
    CHECK(device.description().shared_bytes_per_block == 101376);
    CHECK(device.description().ordinal == 1);
    CHECK(driver->retained_contexts[1] == 1);
  }
  CHECK(driver->retained_contexts[1] == 0);
}

TEST_CASE("-1 is the current context's device, else device 0") {
  FakeDriver driver;
  driver->devices.resize(3);
  CHECK(cuda::CudaDevice(-1).description().ordinal == 0);
  const cuda::CudaDevice second(2);
  const cuda::ContextGuard guard(second);
  CHECK(cuda::CudaDevice(-1).description().ordinal == 2);
}

TEST_CASE("devices that cannot be used are refused with what there is") {
  FakeDriver driver;
  try {
    const cuda::CudaDevice device(1);
    FAIL("device 1 of 1 was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_argument);
    CHECK(error.problem() == "device is 1");
    CHECK(error.allowed().find("0 to 0") != std::string::npos);
  }
  CHECK_THROWS_AS(cuda::CudaDevice(-2), Error);

  driver->devices[0].major = 7;
  driver->devices[0].minor = 5;
  try {
    const cuda::CudaDevice device(0);
    FAIL("compute capability 7.5 was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::no_device);
    CHECK(error.problem().find("7.5") != std::string::npos);
  }
  CHECK(driver->retained_contexts[0] == 0);

  driver->devices.clear();
  try {
    const cuda::CudaDevice device(-1);
    FAIL("a machine without GPUs was accepted");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::no_device);
    CHECK(error.remedy().find("CUDA_VISIBLE_DEVICES") != std::string::npos);
  }
}

TEST_CASE("a context that is already current is not pushed again") {
  FakeDriver driver;
  driver->devices.resize(2);
  const cuda::CudaDevice first(0), second(1);
  const cuda::ContextGuard outer(first);
  {
    const cuda::ContextGuard inner(first);
    CHECK(driver.count("cuCtxPushCurrent_v2") == 1);
  }
  {
    const cuda::ContextGuard inner(second);
    CHECK(driver.count("cuCtxPushCurrent_v2") == 2);
  }
  cuda::Context current = nullptr;
  first.check(first.api().context_get_current(&current), "cuCtxGetCurrent");
  CHECK(current == first.context());
}

TEST_CASE("device memory goes out and comes back, is freed once, and moves") {
  FakeDriver driver;
  const auto device = std::make_shared<const cuda::CudaDevice>(0);
  std::vector<std::byte> sent(1000), received(1000);
  for (std::size_t i = 0; i < sent.size(); ++i)
    sent[i] = static_cast<std::byte>(i * 7);
  {
    cuda::DeviceMemory memory(device, sent.size());
    memory.fill(std::byte{0xFF});
    memory.copy_to_host(received);
    CHECK(received == std::vector<std::byte>(sent.size(), std::byte{0xFF}));
    memory.copy_from_host(sent);
    const cuda::DeviceMemory moved = std::move(memory);
    moved.copy_to_host(received);
    CHECK(received == sent);
    CHECK_THROWS_AS(moved.copy_to_host(std::span(received).first(10)), Error);
    CHECK(driver->allocations.size() == 1);
  }
  CHECK(driver->allocations.empty());
  CHECK(driver.count("cuMemFree_v2") == 1);
}

TEST_CASE("an allocation that fails says how much was asked for") {
  FakeDriver driver;
  const auto device = std::make_shared<const cuda::CudaDevice>(0);
  driver->failures["cuMemAlloc_v2"] = 2;
  try {
    const cuda::DeviceMemory memory(device, 4096);
    FAIL("the failure was ignored");
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::driver_error);
    CHECK(error.problem() == "cuMemAlloc of 4096 bytes failed with CUDA_ERROR_OUT_OF_MEMORY (2, out of memory)");
  }
}

TEST_CASE("a stopwatch reads the events' distance") {
  FakeDriver driver;
  cuda::Stopwatch stopwatch(std::make_shared<const cuda::CudaDevice>(0));
  stopwatch.start();
  stopwatch.stop();
  CHECK(stopwatch.milliseconds() == 1.5);
}
