// The kernels that one executor has loaded, by the value of their spec.
#pragma once

#include <memory>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>

#include "driver/executor.hpp"
#include "support/hash.hpp"

namespace tilewright {

/// Thread-safe. A hit takes a shared lock and one hash over the spec's bytes: no string, no allocation.
class KernelTable {
public:
  /// Null where the spec's kernel is not loaded.
  [[nodiscard]] std::shared_ptr<const Kernel> find(const Spec& spec) const {
    const std::shared_lock lock(mutex_);
    const auto found = kernels_.find(spec);
    return found == kernels_.end() ? nullptr : found->second;
  }

  void insert(const Spec& spec, std::shared_ptr<const Kernel> kernel) {
    const std::unique_lock lock(mutex_);
    kernels_.insert_or_assign(spec, std::move(kernel));
  }

private:
  struct HashOfBytes {
    std::size_t operator()(const Spec& spec) const noexcept {
      return support::hash64(std::as_bytes(std::span(&spec, 1)));
    }
  };

  mutable std::shared_mutex mutex_;
  std::unordered_map<Spec, std::shared_ptr<const Kernel>, HashOfBytes> kernels_;
};

} // namespace tilewright
