#include "cache/lock.hpp"

#include <algorithm>
#include <cerrno>
#include <thread>

#include <fcntl.h>
#include <unistd.h>

#include <fmt/format.h>

namespace tilewright::cache {
namespace {

using Clock = std::chrono::steady_clock;

// Waiting asks again and again, because a wait inside the system has no time limit.
constexpr std::chrono::milliseconds first_pause{1}, longest_pause{20};

} // namespace

std::filesystem::path lock_file() {
  const auto folder = std::filesystem::temp_directory_path() / fmt::format("tilewright-{}", ::geteuid());
  support::create_private_folder(folder);
  support::check_private_folder(folder);
  return folder / "locks";
}

NameLock::NameLock(const std::filesystem::path& file, std::uint64_t name, std::chrono::milliseconds patience)
    : file_(::open(file.c_str(), O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, S_IRUSR | S_IWUSR)),
      position_(static_cast<std::int64_t>(name >> 2)) { // positions are signed, and position + 1 must be one too
  if (!file_)
    return;
  const auto deadline = Clock::now() + patience;
  for (auto pause = first_pause;; pause = std::min(2 * pause, longest_pause)) {
    if (set(F_WRLCK)) {
      state_ = State::held;
      return;
    }
    if (errno != EAGAIN && errno != EACCES && errno != EINTR)
      return;
    if (Clock::now() + pause > deadline) {
      state_ = State::timed_out;
      return;
    }
    std::this_thread::sleep_for(pause);
  }
}

NameLock::~NameLock() {
  if (state_ == State::held)
    set(F_UNLCK);
}

/// Open file description locks: unlike fcntl's older ones they hold between the threads of one process too, and are not
/// lost when any descriptor of the file is closed.
bool NameLock::set(short type) noexcept {
  struct ::flock range {};
  range.l_type = type;
  range.l_whence = SEEK_SET;
  range.l_start = position_;
  range.l_len = 1;
  return ::fcntl(file_.get(), F_OFD_SETLK, &range) == 0;
}

} // namespace tilewright::cache
