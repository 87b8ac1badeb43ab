// The emulator: runs the generated kernels on the CPU. Link tilewright::emulator.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string_view>

#include <tilewright/types.hpp>

namespace tilewright {

class Executor;

/// When asynchronous copies and matrix products take effect, between their issue and the wait that covers them.
enum class Completion : std::uint8_t {
  seeded, // drawn from the seed, per operation
  latest, // at the wait that needs them
  earliest
};

/// What one launch did, all thread blocks together. The same on every host, for every seed.
struct EmulatorCounters {
  std::uint64_t bytes_loaded = 0;        // from global memory, by ordinary instructions of each thread
  std::uint64_t bytes_stored = 0;        // to it
  std::uint64_t bytes_to_shared = 0;     // by copies, zeros for what is outside the tensor included
  std::uint64_t bytes_from_shared = 0;   // boxes written to tensors, the parts outside included
  std::uint64_t matrix_instructions = 0; // of warps: mma.sync; wgmma counts one for each of the four warps
  std::uint64_t bank_conflicts = 0;      // additional passes of ldmatrix and stmatrix over the banks

  friend bool operator==(const EmulatorCounters&, const EmulatorCounters&) = default;
  constexpr EmulatorCounters& operator+=(const EmulatorCounters& more) noexcept {
    bytes_loaded += more.bytes_loaded;
    bytes_stored += more.bytes_stored;
    bytes_to_shared += more.bytes_to_shared;
    bytes_from_shared += more.bytes_from_shared;
    matrix_instructions += more.matrix_instructions;
    bank_conflicts += more.bank_conflicts;
    return *this;
  }
};

struct EmulatorOptions {
  std::uint64_t seed = 0; // order of fibers, completion of copies
  Completion completion = Completion::seeded;
  Architecture architecture{8, 0, 0}; // which kernels to generate
  int threads = 0;                    // host threads that run thread blocks; 0: all cores
  std::filesystem::path folder{};     // compiled kernels; empty: "emulator" beside the cache
  bool check_initialised = true;      // shared memory and registers start as NaN patterns
  bool check_races = false;           // accesses to shared memory that nothing orders are errors; costs time
  std::function<void(std::string_view kernel, const EmulatorCounters& counters)> counted{}; // after each launch
};

/// An executor for tilewright::Runtime; "device" memory is the host's. Needs a host C++ compiler ($CXX, c++, g++,
/// clang++) where a kernel was not compiled before. Throws unsupported where there is none. launch() returns when
/// the kernel has finished; a deadlock or an illegal access is an Error (internal) that says who waits for what.
std::shared_ptr<Executor> make_emulator(const EmulatorOptions& options = {});

} // namespace tilewright
