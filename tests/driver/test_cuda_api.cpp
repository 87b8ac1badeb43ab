// The declarations of cuda_api.hpp against NVIDIA's own, where a toolkit is installed.
#include <doctest/doctest.h>

#include "driver/cuda_api.hpp"
#include "fake_driver.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;

#ifdef TILEWRIGHT_HAVE_CUDA_H
#include <cuda.h>

#define SAME(ours, theirs) static_assert(static_cast<int>(cuda::ours) == static_cast<int>(theirs))
SAME(Result::invalid_value, CUDA_ERROR_INVALID_VALUE);
SAME(Result::out_of_memory, CUDA_ERROR_OUT_OF_MEMORY);
SAME(Result::stub_library, CUDA_ERROR_STUB_LIBRARY);
SAME(Result::no_device, CUDA_ERROR_NO_DEVICE);
SAME(Result::invalid_image, CUDA_ERROR_INVALID_IMAGE);
SAME(Result::no_binary_for_gpu, CUDA_ERROR_NO_BINARY_FOR_GPU);
SAME(Result::invalid_ptx, CUDA_ERROR_INVALID_PTX);
SAME(Result::unsupported_ptx_version, CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
SAME(Result::illegal_address, CUDA_ERROR_ILLEGAL_ADDRESS);
SAME(Result::launch_out_of_resources, CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES);
SAME(Result::launch_failed, CUDA_ERROR_LAUNCH_FAILED);
SAME(Result::system_driver_mismatch, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH);
SAME(Result::stream_capture_unsupported, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
SAME(Result::stream_capture_implicit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
SAME(Result::captured_event, CUDA_ERROR_CAPTURED_EVENT);
SAME(DeviceAttribute::multiprocessor_count, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT);
SAME(DeviceAttribute::l2_cache_bytes, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE);
SAME(DeviceAttribute::compute_capability_major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR);
SAME(DeviceAttribute::compute_capability_minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR);
SAME(DeviceAttribute::shared_bytes_per_block_optin, CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
SAME(FunctionAttribute::registers, CU_FUNC_ATTRIBUTE_NUM_REGS);
SAME(FunctionAttribute::max_dynamic_shared_bytes, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES);
SAME(PointerAttribute::memory_type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE);
SAME(PointerAttribute::is_managed, CU_POINTER_ATTRIBUTE_IS_MANAGED);
SAME(PointerAttribute::device_ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL);
SAME(MemoryType::host, CU_MEMORYTYPE_HOST);
SAME(MemoryType::device, CU_MEMORYTYPE_DEVICE);
SAME(CaptureStatus::none, CU_STREAM_CAPTURE_STATUS_NONE);
SAME(CaptureMode::relaxed, CU_STREAM_CAPTURE_MODE_RELAXED);
SAME(TensorMapDataType::int32, CU_TENSOR_MAP_DATA_TYPE_INT32);
SAME(TensorMapDataType::float16, CU_TENSOR_MAP_DATA_TYPE_FLOAT16);
SAME(TensorMapDataType::float32, CU_TENSOR_MAP_DATA_TYPE_FLOAT32);
SAME(TensorMapDataType::bfloat16, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16);
SAME(TensorMapInterleave::none, CU_TENSOR_MAP_INTERLEAVE_NONE);
SAME(TensorMapSwizzle::bytes_128, CU_TENSOR_MAP_SWIZZLE_128B);
SAME(TensorMapL2Promotion::bytes_256, CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
SAME(TensorMapFill::zeros, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
SAME(LaunchAttributeId::cluster_dimension, CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);

static_assert(sizeof(cuda::LaunchAttribute) == sizeof(CUlaunchAttribute));
static_assert(offsetof(cuda::LaunchAttribute, value) == offsetof(CUlaunchAttribute, value));
static_assert(sizeof(cuda::LaunchConfig) == sizeof(CUlaunchConfig));
static_assert(offsetof(cuda::LaunchConfig, shared_bytes) == offsetof(CUlaunchConfig, sharedMemBytes));
static_assert(offsetof(cuda::LaunchConfig, stream) == offsetof(CUlaunchConfig, hStream));
static_assert(offsetof(cuda::LaunchConfig, attributes) == offsetof(CUlaunchConfig, attrs));
static_assert(offsetof(cuda::LaunchConfig, attribute_count) == offsetof(CUlaunchConfig, numAttrs));
static_assert(sizeof(cuda::Device) == sizeof(CUdevice));
static_assert(sizeof(cuda::DevicePointer) == sizeof(CUdeviceptr));
#endif

namespace {

Error error_of_opening() {
  try {
    (void)cuda::open_api();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorCode::internal, "nothing was thrown", "", ""};
}

} // namespace

TEST_CASE("a named library that is not there is no_device, with its path") {
  setenv("TILEWRIGHT_LIBCUDA", "/nowhere/libcuda.so.1", 1);
  const Error error = error_of_opening();
  unsetenv("TILEWRIGHT_LIBCUDA");
  CHECK(error.code() == ErrorCode::no_device);
  CHECK(error.problem().find("/nowhere/libcuda.so.1") != std::string::npos);
  CHECK(error.remedy().find("TILEWRIGHT_LIBCUDA") != std::string::npos);
}

TEST_CASE("a driver that does not start is no_device, with the driver's reason") {
  FakeDriver driver;
  driver->failures["cuInit"] = 222;
  const Error error = error_of_opening();
  CHECK(error.code() == ErrorCode::no_device);
  CHECK(error.problem().find("CUDA_ERROR_UNSUPPORTED_PTX_VERSION (222") != std::string::npos);
}

TEST_CASE("a driver older than CUDA 12.0 is no_device, with its version") {
  FakeDriver driver;
  driver->driver_version = 11080;
  const Error error = error_of_opening();
  CHECK(error.code() == ErrorCode::no_device);
  CHECK(error.problem().find("11.8") != std::string::npos);
  CHECK(error.allowed().find("12.0") != std::string::npos);
}

TEST_CASE("results are described by name, number and text") {
  FakeDriver driver;
  const cuda::Api api = cuda::open_api();
  CHECK(cuda::describe(api, cuda::Result::out_of_memory) == "CUDA_ERROR_OUT_OF_MEMORY (2, out of memory)");
  CHECK(cuda::describe(api, static_cast<cuda::Result>(12345)) == "CUDA error 12345");
  CHECK(cuda::version_text(12040) == "12.4");
}
