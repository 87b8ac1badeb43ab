#include "emulator/launch.hpp"

#include <algorithm>
#include <atomic>
#include <exception>
#include <thread>

#include "emulator/multiprocessor.hpp"

namespace tilewright::emulator {
namespace {

/// Hands out clusters in ascending order until one fails: all before it have then been handed out too.
class ClusterQueue {
public:
  explicit ClusterQueue(std::uint32_t clusters) : clusters_(clusters) {}

  void work(const LaunchPlan& plan, Multiprocessor& multiprocessor) {
    while (!failed_.load()) {
      const std::uint32_t cluster = next_.fetch_add(1);
      if (cluster >= clusters_)
        return;
      try {
        multiprocessor.run(plan, cluster);
      } catch (...) {
        note_failure(cluster);
      }
    }
  }

  void rethrow() const {
    if (failure_)
      std::rethrow_exception(failure_);
  }

private:
  void note_failure(std::uint32_t cluster) {
    const std::lock_guard lock(mutex_);
    failed_ = true;
    if (!failure_ || cluster < failed_cluster_) {
      failure_ = std::current_exception();
      failed_cluster_ = cluster;
    }
  }

  const std::uint32_t clusters_;
  std::atomic<std::uint32_t> next_{0};
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
  std::exception_ptr failure_;
  std::uint32_t failed_cluster_ = 0;
};

} // namespace

MultiprocessorPool::MultiprocessorPool() = default;
MultiprocessorPool::~MultiprocessorPool() = default;

std::unique_ptr<Multiprocessor> MultiprocessorPool::take(std::size_t threads) {
  {
    const std::lock_guard lock(mutex_);
    const auto fits = [threads](const auto& multiprocessor) { return multiprocessor->capacity() >= threads; };
    if (const auto found = std::find_if(idle_.begin(), idle_.end(), fits); found != idle_.end()) {
      std::unique_ptr<Multiprocessor> multiprocessor = std::move(*found);
      idle_.erase(found);
      return multiprocessor;
    }
  }
  return std::make_unique<Multiprocessor>(threads);
}

void MultiprocessorPool::give_back(std::unique_ptr<Multiprocessor> multiprocessor) {
  const std::lock_guard lock(mutex_);
  idle_.push_back(std::move(multiprocessor));
}

EmulatorCounters run_launch(const LaunchPlan& given, MultiprocessorPool& pool, int host_threads) {
  LaunchPlan plan = given;
  GlobalStores stores;
  plan.stores = plan.check_races ? &stores : nullptr;
  const std::uint32_t clusters = plan.blocks / plan.cluster;
  ClusterQueue queue(clusters);
  EmulatorCounters sum;
  std::mutex sum_mutex;
  const auto work = [&] {
    std::unique_ptr<Multiprocessor> multiprocessor = pool.take(std::size_t{plan.cluster} * plan.threads_per_block);
    queue.work(plan, *multiprocessor);
    {
      const std::lock_guard lock(sum_mutex);
      sum += multiprocessor->take_counters();
    }
    pool.give_back(std::move(multiprocessor));
  };
  {
    std::vector<std::jthread> helpers;
    const auto most = std::min(static_cast<std::uint32_t>(std::max(host_threads, 1)), clusters);
    for (std::uint32_t helper = 1; helper < most; ++helper)
      helpers.emplace_back(work);
    work();
  }
  queue.rethrow();
  return sum;
}

} // namespace tilewright::emulator
