// A CUDA driver for tests: host memory instead of a GPU, every call recorded, every answer adjustable.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace fake_cuda {

struct FakeDevice {
  std::string name = "Fake H100";
  int major = 9, minor = 0;
  int multiprocessors = 132;
  int shared_bytes_per_block = 227 * 1024;
};

struct Launch {
  std::uint32_t grid[3]{}, block[3]{}, cluster[3]{}; // cluster 0: no attribute
  std::uint32_t shared_bytes = 0;
  void* stream = nullptr;
  int context_device = -1; // of the thread's current context; -1: none
  std::uint64_t first_parameter_word = 0;
};

struct TensorMapCall {
  int type = 0;
  std::vector<std::uint64_t> extents, strides;
  std::vector<std::uint32_t> box;
  int interleave = 0, swizzle = 0, promotion = 0, fill = 0;
};

/// What the library answers, and what it saw. Tests that use threads change it only while no call is in flight.
struct State {
  int driver_version = 13000;
  std::vector<FakeDevice> devices{FakeDevice{}};
  std::map<std::string, int> failures;       // entry point -> CUresult that it returns instead of working
  std::map<const void*, int> capture_status; // stream -> CUstreamCaptureStatus

  std::vector<std::string> calls; // entry points, in order
  std::vector<Launch> launches;
  std::vector<TensorMapCall> tensor_maps;
  std::vector<std::string> images;                                  // first bytes of each loaded library, up to a zero
  std::vector<int> shared_byte_limits;                              // cuKernelSetAttribute
  int loaded_functions = 0;                                         // cuFuncLoad
  int libraries = 0;                                                // loaded and not unloaded
  std::map<int, int> retained_contexts;                             // device -> retains minus releases
  std::map<std::uint64_t, std::pair<std::size_t, int>> allocations; // address -> bytes, device
};

/// Exported as fake_cuda_state: the library's one state.
using StateFunction = State* (*)();

} // namespace fake_cuda
