// One loop over independent items, on several threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace tilewright::reference {

/// Calls work(item) for every item in 0 .. items - 1, each once, in no particular order. threads = 0: all cores.
/// Rethrows the first exception after all threads have ended.
template <typename Work> void parallel_for(std::size_t items, int threads, Work work) {
  std::atomic<std::size_t> next{0};
  std::exception_ptr failure;
  std::mutex failure_mutex;
  const auto run = [&] {
    try {
      for (std::size_t item = next++; item < items; item = next++)
        work(item);
    } catch (...) {
      next = items;
      const std::lock_guard lock(failure_mutex);
      if (!failure)
        failure = std::current_exception();
    }
  };
  const std::size_t wanted = threads > 0 ? static_cast<std::size_t>(threads) : std::thread::hardware_concurrency();
  {
    std::vector<std::jthread> helpers; // beside this thread
    for (std::size_t i = 1; i < std::min(wanted, items); ++i)
      helpers.emplace_back(run);
    run();
  }
  if (failure)
    std::rethrow_exception(failure);
}

} // namespace tilewright::reference
