// The CUDA driver API, opened at run time: the part of it that tilewright calls, declared here so that no CUDA header
// is needed to build. Signatures and values are those of the CUDA driver API's public interface (cuda.h, CUDA 12.0
// to 13.0: unchanged between them); tests/driver compares every one with cuda.h where that is installed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include <tilewright/types.hpp>

namespace tilewright::cuda {

using Device = int;
using DevicePointer = std::uint64_t;
using Context = struct ContextTag*;
using Library = struct LibraryTag*;
using KernelHandle = struct KernelTag*;
using Function = struct FunctionTag*;
using Event = struct EventTag*;

enum class Result : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  stub_library = 34,
  no_device = 100,
  invalid_image = 200,
  no_binary_for_gpu = 209,
  invalid_ptx = 218,
  unsupported_ptx_version = 222,
  illegal_address = 700,
  launch_out_of_resources = 701,
  launch_failed = 719,
  system_driver_mismatch = 803,
  stream_capture_unsupported = 900, // the first of those about capture ...
  stream_capture_implicit = 906,
  captured_event = 907 // ... and the last
};

enum class DeviceAttribute : int {
  multiprocessor_count = 16,
  l2_cache_bytes = 38,
  compute_capability_major = 75,
  compute_capability_minor = 76,
  shared_bytes_per_block_optin = 97
};
enum class FunctionAttribute : int { registers = 4, max_dynamic_shared_bytes = 8 };
enum class PointerAttribute : int { memory_type = 2, is_managed = 8, device_ordinal = 9 };
enum class MemoryType : unsigned { unknown = 0, host = 1, device = 2 };
enum class CaptureStatus : int { none = 0 };
enum class CaptureMode : int { relaxed = 2 };
enum class TensorMapDataType : int { int32 = 3, float16 = 6, float32 = 7, bfloat16 = 9 };
enum class TensorMapInterleave : int { none = 0 };
enum class TensorMapSwizzle : int { bytes_128 = 3 };
enum class TensorMapL2Promotion : int { bytes_256 = 3 };
enum class TensorMapFill : int { zeros = 0 };
enum class LaunchAttributeId : int { cluster_dimension = 4 };

struct LaunchAttribute {
  LaunchAttributeId id;
  alignas(8) std::uint32_t value[16]; // cluster_dimension: x, y, z
};

struct LaunchConfig {
  std::uint32_t grid_x, grid_y, grid_z;
  std::uint32_t block_x, block_y, block_z;
  std::uint32_t shared_bytes;
  Stream stream;
  LaunchAttribute* attributes;
  std::uint32_t attribute_count;
};

/// The entry points. Each is exported by libcuda under the name that stands in cuda_api.cpp.
struct Api {
  std::string library;    // what was opened
  int driver_version = 0; // 1000 * major + 10 * minor of the newest CUDA that the driver knows

  Result (*get_error_name)(Result, const char**) = nullptr;
  Result (*get_error_string)(Result, const char**) = nullptr;
  Result (*init)(unsigned flags) = nullptr;
  Result (*driver_get_version)(int*) = nullptr;

  Result (*device_get_count)(int*) = nullptr;
  Result (*device_get)(Device*, int ordinal) = nullptr;
  Result (*device_get_name)(char*, int capacity, Device) = nullptr;
  Result (*device_get_attribute)(int*, DeviceAttribute, Device) = nullptr;
  Result (*device_total_memory)(std::size_t*, Device) = nullptr;

  Result (*primary_context_retain)(Context*, Device) = nullptr;
  Result (*primary_context_release)(Device) = nullptr;
  Result (*context_get_current)(Context*) = nullptr;
  Result (*context_get_device)(Device*) = nullptr;
  Result (*context_push)(Context) = nullptr;
  Result (*context_pop)(Context*) = nullptr;

  Result (*library_load_data)(Library*, const void* image, void* jit_options, void** jit_values, unsigned jit_count,
                              void* options, void** values, unsigned count) = nullptr;
  Result (*library_unload)(Library) = nullptr;
  Result (*library_get_kernel)(KernelHandle*, Library, const char* name) = nullptr;
  Result (*kernel_get_function)(Function*, KernelHandle) = nullptr;
  Result (*kernel_set_attribute)(FunctionAttribute, int value, KernelHandle, Device) = nullptr;
  Result (*function_get_attribute)(int*, FunctionAttribute, Function) = nullptr;
  Result (*function_load)(Function) = nullptr; // CUDA 12.4; may be null
  Result (*launch_kernel)(const LaunchConfig*, Function, void** parameters, void** extra) = nullptr;

  Result (*tensor_map_encode_tiled)(void* map, TensorMapDataType, std::uint32_t rank, void* data,
                                    const std::uint64_t* extents, const std::uint64_t* strides_bytes,
                                    const std::uint32_t* box, const std::uint32_t* element_strides, TensorMapInterleave,
                                    TensorMapSwizzle, TensorMapL2Promotion, TensorMapFill) = nullptr;

  Result (*pointer_get_attributes)(unsigned count, PointerAttribute*, void** values, DevicePointer) = nullptr;
  Result (*memory_allocate)(DevicePointer*, std::size_t) = nullptr;
  Result (*memory_free)(DevicePointer) = nullptr;
  Result (*memory_copy_to_device)(DevicePointer, const void*, std::size_t) = nullptr;
  Result (*memory_copy_to_host)(void*, DevicePointer, std::size_t) = nullptr;
  Result (*memory_copy_to_host_async)(void*, DevicePointer, std::size_t, Stream) = nullptr;
  Result (*memory_set_async)(DevicePointer, unsigned char value, std::size_t, Stream) = nullptr;

  Result (*stream_is_capturing)(Stream, CaptureStatus*) = nullptr;
  Result (*stream_synchronize)(Stream) = nullptr;
  Result (*exchange_capture_mode)(CaptureMode*) = nullptr;
  Result (*event_create)(Event*, unsigned flags) = nullptr;
  Result (*event_destroy)(Event) = nullptr;
  Result (*event_record)(Event, Stream) = nullptr;
  Result (*event_synchronize)(Event) = nullptr;
  Result (*event_elapsed_time)(float* milliseconds, Event start, Event end) = nullptr;
};

/// Opens the driver's library and initialises it: $TILEWRIGHT_LIBCUDA where that is set (a path; useful in containers
/// that mount the driver somewhere else), otherwise libcuda.so.1 as the loader finds it, then the usual places outside
/// the loader's path (WSL, NVIDIA's container mounts). Throws no_device, saying what was looked for, where there is no
/// driver, no GPU, or a driver older than CUDA 12.0. The library is never closed.
Api open_api();

/// "CUDA_ERROR_OUT_OF_MEMORY (2, out of memory)".
std::string describe(const Api& api, Result result);

/// Throws driver_error, with the call and what to do, unless the result is success.
void check(const Api& api, Result result, std::string_view call);

/// Whether the result says that a stream's capture forbids the call.
bool is_capture_error(Result result) noexcept;

/// "12.4" of 12040.
std::string version_text(int version);

} // namespace tilewright::cuda
