#include "progress.hpp"

#include <algorithm>
#include <cstdio>
#include <utility>

#include <fmt/format.h>
#include <unistd.h>

namespace tilewright::tools {

std::string progress_line(const std::string& label, std::size_t done, std::size_t total, double seconds) {
  constexpr std::size_t bar_width = 30;
  if (total == 0)
    return fmt::format("{} {:.0f} s", label, seconds);
  const std::size_t filled = bar_width * std::min(done, total) / total;
  return fmt::format("{} [{:<{}}] {}/{} {:.0f} s", label, std::string(filled, '='), bar_width, done, total, seconds);
}

Progress::Progress(std::string label, std::size_t total) : label_(std::move(label)), total_(total) {
  if (::isatty(STDERR_FILENO) != 0)
    painter_ = std::thread([this] { draw_until_finished(); });
}

Progress::~Progress() { finish(); }

void Progress::finish() {
  {
    const std::lock_guard lock(mutex_);
    finished_ = true;
  }
  changed_.notify_all();
  if (painter_.joinable())
    painter_.join();
}

void Progress::step() {
  const std::lock_guard lock(mutex_);
  ++done_;
}

void Progress::draw_until_finished() {
  using namespace std::chrono_literals;
  constexpr std::chrono::milliseconds patience = 1s, period = 100ms;
  constexpr const char* wipe_line = "\r\x1b[K";
  std::unique_lock lock(mutex_);
  const auto is_finished = [this] { return finished_; };
  if (changed_.wait_for(lock, patience, is_finished))
    return;
  do {
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
    fmt::print(stderr, "{}{}", wipe_line, progress_line(label_, done_, total_, elapsed.count()));
    std::fflush(stderr);
  } while (!changed_.wait_for(lock, period, is_finished));
  fmt::print(stderr, "{}", wipe_line);
  std::fflush(stderr);
}

} // namespace tilewright::tools
