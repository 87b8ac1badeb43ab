// The kernel cache: spec -> compiled kernel. Memory, disk, and one compile for all who ask at the same time.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "cache/entry.hpp"
#include "codegen/source.hpp"
#include "compiler/nvrtc.hpp"
#include "support/messages.hpp"
#include <tilewright/cache.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::cache {

/// What the cache asks of the modules above it. Tests put their own in place, to count or to fail.
struct Toolchain {
  std::function<codegen::GeneratedSource(const Spec&)> generate;
  /// The compiler that compile() would use; nothing where there is none.
  std::function<std::optional<std::string>()> compiler_identity;
  std::function<compiler::CompiledKernel(const codegen::GeneratedSource&, const Architecture&)> compile;
  /// Asked only where there is no compiler, newest entry first: whether this process could load it. Empty: any.
  std::function<bool(const CacheEntry&)> loadable = {};
};

/// codegen::generate and NVRTC.
Toolchain default_toolchain();

/// Thread-safe and fork-safe; touches nothing until it is first asked. The protocol is in docs/cache.md.
class KernelCache {
public:
  /// Warnings (an unusable folder, a corrupt entry, a compile where jit = warn) go to on_message.
  explicit KernelCache(CacheOptions options = {}, support::MessageCallback on_message = {},
                       Toolchain toolchain = default_toolchain());
  ~KernelCache();
  KernelCache(const KernelCache&) = delete;
  KernelCache& operator=(const KernelCache&) = delete;

  /// The spec's kernel: from memory (well under 100 ns), from disk, or compiled. Throws unsupported (no NVRTC, or one
  /// that does not know the architecture), compile_failed, jit_forbidden.
  std::shared_ptr<const CacheEntry> get(const Spec& spec);

  /// The spec's kernel where memory or disk has it, else null. Never compiles, never waits for another's compile.
  std::shared_ptr<const CacheEntry> find(const Spec& spec);

  [[nodiscard]] CacheStatistics statistics() const;

private:
  struct State;
  State& state() const;

  CacheOptions options_;
  support::MessageCallback on_message_;
  Toolchain toolchain_;
  mutable std::atomic<State*> state_{nullptr};
};

} // namespace tilewright::cache
