// A progress bar for whatever lasts over a second.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <string>
#include <thread>

namespace tilewright::tools {

/// Draws one line on stderr while it lives, from its second second on, and only where stderr is a terminal. Wipes the
/// line at its end. Thread-safe.
class Progress {
public:
  /// total steps; 0: unknown, only the time is shown.
  explicit Progress(std::string label, std::size_t total = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step();
  /// Wipes the line before the object ends.
  void finish();

private:
  void draw_until_finished();

  std::string label_;
  std::size_t total_, done_ = 0;
  bool finished_ = false;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread painter_;
};

/// One line: "label [=====     ] 12/24 3 s". Total 0: "label 3 s".
std::string progress_line(const std::string& label, std::size_t done, std::size_t total, double seconds);

} // namespace tilewright::tools
