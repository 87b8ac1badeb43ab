// Advisory locks between the processes of one host, so that one of them compiles and the others wait for it.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>

#include "support/files.hpp"

namespace tilewright::cache {

/// Where this user's lock file lies: in the host's temporary folder, never in the cache, which may be on a network file
/// system. Created where it is missing. Throws where it cannot be used.
std::filesystem::path lock_file();

/// Locks one byte of the lock file: a name is a position, so there is one file however many kernels there are, and the
/// system releases the lock when its process ends. Locks save work only; nothing relies on them.
class NameLock {
public:
  enum class State {
    held,
    timed_out,  // another process has held it all the time
    unavailable // no lock file here
  };

  /// Waits for at most `patience`.
  NameLock(const std::filesystem::path& file, std::uint64_t name, std::chrono::milliseconds patience);
  /// Unlocks explicitly: a child that was forked meanwhile shares the lock and must not keep it.
  ~NameLock();
  NameLock(const NameLock&) = delete;
  NameLock& operator=(const NameLock&) = delete;

  [[nodiscard]] State state() const noexcept { return state_; }

private:
  bool set(short type) noexcept;

  support::FileDescriptor file_;
  std::int64_t position_;
  State state_ = State::unavailable;
};

} // namespace tilewright::cache
