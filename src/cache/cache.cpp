#include "cache/cache.hpp"

#include <cstring>
#include <future>
#include <mutex>
#include <shared_mutex>
#include <span>
#include <unordered_map>

#include <pthread.h>

#include <fmt/format.h>

#include "cache/key.hpp"
#include "cache/lock.hpp"
#include "cache/store.hpp"
#include "support/environment.hpp"
#include <tilewright/error.hpp>

namespace tilewright::cache {
namespace {

using EntryPointer = std::shared_ptr<const CacheEntry>;

/// How many forks lie between the first process and this one.
std::atomic<unsigned> forks{0};

void count_forks() {
  static std::once_flag once;
  std::call_once(once,
                 [] { ::pthread_atfork(nullptr, nullptr, [] { forks.fetch_add(1, std::memory_order_relaxed); }); });
}

Jit policy(Jit option) {
  const auto named = support::environment("TILEWRIGHT_JIT");
  if (!named)
    return option;
  if (*named == "allow")
    return Jit::allow;
  if (*named == "warn")
    return Jit::warn;
  if (*named == "forbid")
    return Jit::forbid;
  throw Error(ErrorCode::invalid_argument, fmt::format("$TILEWRIGHT_JIT is '{}'", *named),
              "allow, warn and forbid are allowed", "correct TILEWRIGHT_JIT, or unset it");
}

} // namespace

/// What one process knows. A forked child starts with a new one: the locks of the old one may be held by threads that
/// the child does not have.
struct KernelCache::State {
  struct SpecHash {
    std::size_t operator()(const Spec& spec) const noexcept {
      return support::hash64(std::as_bytes(std::span(&spec, 1)));
    }
  };
  template <typename Value> using BySpec = std::unordered_map<Spec, Value, SpecHash>;

  State(const KernelCache& owner, unsigned generation_) : cache(owner), generation(generation_) {}

  const KernelCache& cache;
  const unsigned generation;

  std::shared_mutex memory_lock;
  BySpec<EntryPointer> memory;

  std::mutex flights_lock; // taken before memory_lock
  BySpec<std::shared_future<EntryPointer>> flights;

  std::once_flag opened;
  std::optional<Store> store, lower;

  std::atomic<bool> warned_of_writing{false}, remote_failed{false};
  struct {
    std::atomic<std::uint64_t> memory_hits{0}, disk_hits{0}, read_only_hits{0}, remote_hits{0}, compiles{0}, joined{0},
        lock_timeouts{0}, corrupt_entries{0}, failed_writes{0};
  } counts;

  void warn(std::string_view happened, std::string_view meaning, std::string_view remedy) const {
    support::warn(cache.on_message_, happened, meaning, remedy);
  }

  EntryPointer recall(const Spec& spec) {
    const std::shared_lock guard(memory_lock);
    const auto found = memory.find(spec);
    return found == memory.end() ? nullptr : found->second;
  }

  EntryPointer remember(const Spec& spec, const EntryPointer& entry) {
    const std::unique_lock guard(memory_lock);
    return memory.try_emplace(spec, entry).first->second;
  }

  /// One thread does the work for all that ask for the spec at the same time; its failure is theirs, and then
  /// forgotten.
  EntryPointer join_or_obtain(const Spec& spec) {
    std::promise<EntryPointer> promise;
    {
      std::unique_lock guard(flights_lock);
      if (auto entry = recall(spec))
        return entry;
      if (const auto flight = flights.find(spec); flight != flights.end()) {
        const auto result = flight->second;
        guard.unlock();
        ++counts.joined;
        return result.get();
      }
      flights.emplace(spec, promise.get_future().share());
    }
    const auto land = [&] {
      const std::lock_guard guard(flights_lock);
      flights.erase(spec);
    };
    try {
      EntryPointer entry = remember(spec, obtain(spec));
      land();
      promise.set_value(entry);
      return entry;
    } catch (...) {
      land();
      promise.set_exception(std::current_exception());
      throw;
    }
  }

  /// What a spec asks of the disk.
  struct Request {
    codegen::GeneratedSource source;
    support::Hash128 key;
    std::optional<std::string> compiler;
  };

  Request request(const Spec& spec) const {
    codegen::GeneratedSource source = cache.toolchain_.generate(spec);
    const support::Hash128 key = request_key(source, spec.architecture);
    return {std::move(source), key, cache.toolchain_.compiler_identity()};
  }

  EntryPointer obtain(const Spec& spec) {
    const Request wanted = request(spec);
    if (auto entry = look_up(wanted))
      return entry;
    const Jit jit = policy(cache.options_.jit);
    if (jit == Jit::forbid) { // no lock: who may not compile waits for nobody
      if (auto entry = ask_remote(wanted))
        return entry;
      throw forbidden(spec);
    }
    std::optional<NameLock> lock;
    if (store) {
      take_lock(lock, wanted);
      if (auto entry = look_in(store, wanted)) // whoever held the lock may have compiled it
        return entry;
    }
    if (auto entry = ask_remote(wanted))
      return entry;
    if (jit == Jit::warn)
      warn(fmt::format("the kernel of {} is not in the cache", to_string(spec)),
           "it is being compiled, which takes a while", "compile it ahead of time, or set jit = allow");
    return compile(spec, wanted);
  }

  /// The disk: this cache, then the read-only layer.
  EntryPointer look_up(const Request& wanted) {
    std::call_once(opened, [this] { open_stores(); });
    if (auto entry = look_in(store, wanted))
      return entry;
    auto entry = look_in(lower, wanted);
    if (entry)
      ++counts.read_only_hits;
    return entry;
  }

  EntryPointer look_in(const std::optional<Store>& layer, const Request& wanted) {
    if (!layer)
      return nullptr;
    const auto paths =
        wanted.compiler ? std::vector{layer->path_of(wanted.key, *wanted.compiler)} : layer->paths_of(wanted.key);
    for (const auto& path : paths)
      if (auto entry = read(*layer, path, wanted)) {
        ++counts.disk_hits;
        return entry;
      }
    return nullptr;
  }

  /// One failure is enough: the tier is then left alone, because asking it again costs what compiling does.
  EntryPointer ask_remote(const Request& wanted) {
    if (!cache.options_.remote || remote_failed)
      return nullptr;
    try {
      const auto file = cache.options_.remote->fetch(remote_name(wanted.key, wanted.compiler));
      if (!file)
        return nullptr;
      Decoded decoded = decode(*file);
      if (decoded.state == Decoding::other_version)
        return nullptr;
      if (decoded.state == Decoding::corrupt)
        throw Error(ErrorCode::cache_corrupt, "the remote cache's entry is corrupt: " + decoded.problem,
                    "whole entries are used", "fill the remote cache again");
      if (!answers(decoded.entry, wanted))
        throw Error(ErrorCode::cache_corrupt, "the remote cache has another kernel's entry under this name",
                    "an entry is stored under its own name", "fill the remote cache again");
      ++counts.remote_hits;
      if (store)
        publish(decoded.entry);
      return std::make_shared<const CacheEntry>(std::move(decoded.entry));
    } catch (const Error& error) {
      leave_remote_alone(error.problem(), error.remedy());
    } catch (const std::exception& error) { // a host application's own tier may throw anything
      leave_remote_alone(error.what(), "see the implementation of CacheOptions::remote");
    }
    return nullptr;
  }

  void leave_remote_alone(std::string_view reason, std::string_view remedy) {
    if (!remote_failed.exchange(true))
      warn(reason, "the remote cache is left alone for the rest of this process", remedy);
  }

  /// Whether an entry is the one that was asked for, and can be used here.
  bool answers(const CacheEntry& entry, const Request& wanted) const {
    return entry.key == wanted.key && entry.kernel_name == wanted.source.kernel_name &&
           (!wanted.compiler || entry.compiler_identity == *wanted.compiler) &&
           (wanted.compiler || !cache.toolchain_.loadable || cache.toolchain_.loadable(entry));
  }

  EntryPointer read(const Store& layer, const std::filesystem::path& path, const Request& wanted) {
    std::optional<Decoded> decoded = layer.read(path);
    if (!decoded)
      return nullptr;
    if (decoded->state == Decoding::corrupt) {
      ++counts.corrupt_entries;
      warn(decoded->problem, "the kernel is compiled again",
           "check the disk, and who else writes to the cache; `tilewright cache verify` checks every entry");
    }
    if (decoded->state != Decoding::good || !answers(decoded->entry, wanted))
      return nullptr; // a good file under another's name was put there by hand
    return std::make_shared<const CacheEntry>(std::move(decoded->entry));
  }

  void open_stores() {
    try {
      store.emplace(cache_folder(cache.options_.folder), Store::Access::read_write);
    } catch (const Error& error) {
      warn(error.problem(), "kernels are compiled in every process and not kept",
           "correct the folder, set TILEWRIGHT_CACHE to another, or TILEWRIGHT_CACHE_ALLOW_SHARED=1 to trust one that "
           "others "
           "may write to");
    }
    try {
      if (const auto folder = read_only_folder(cache.options_.read_only_folder); !folder.empty())
        lower.emplace(folder, Store::Access::read_only);
    } catch (const Error& error) {
      warn(error.problem(), "the read-only cache is not used",
           "correct TILEWRIGHT_CACHE_RO, or set TILEWRIGHT_CACHE_ALLOW_SHARED=1 to trust one that others may write to");
    }
  }

  void take_lock(std::optional<NameLock>& lock, const Request& wanted) {
    support::FieldHasher name;
    name.field("folder", store->folder().string())
        .field("key", to_string(wanted.key))
        .field("compiler", wanted.compiler.value_or(""));
    try {
      lock.emplace(lock_file(), name.digest().high, cache.options_.lock_patience);
    } catch (const Error&) { // no lock file here: two processes may do the same work, and that is all
      return;
    }
    if (lock->state() == NameLock::State::timed_out) {
      ++counts.lock_timeouts;
      warn(fmt::format("another process has been compiling the same kernel for {} ms",
                       cache.options_.lock_patience.count()),
           "it is compiled here as well", "look for a stopped process that uses tilewright");
    }
  }

  EntryPointer compile(const Spec& spec, const Request& wanted) {
    compiler::CompiledKernel kernel = cache.toolchain_.compile(wanted.source, spec.architecture);
    ++counts.compiles;
    CacheEntry entry{.key = wanted.key,
                     .spec = to_string(spec),
                     .kernel_name = wanted.source.kernel_name,
                     .compiler_identity = std::move(kernel.compiler_identity),
                     .compiler_version = std::move(kernel.compiler_version),
                     .log = std::move(kernel.log),
                     .report = kernel.report,
                     .compile_milliseconds = kernel.milliseconds,
                     .cubin = std::move(kernel.cubin),
                     .origin = KernelOrigin::compiled};
    if (entry.compiler_identity.empty())
      entry.compiler_identity = wanted.compiler.value_or("");
    if (store)
      publish(entry);
    return std::make_shared<const CacheEntry>(std::move(entry));
  }

  void publish(const CacheEntry& entry) {
    try {
      store->publish(entry);
      store->prune({cache.options_.maximum_bytes, cache.options_.maximum_entries});
    } catch (const Error& error) {
      ++counts.failed_writes;
      if (!warned_of_writing.exchange(true))
        warn(error.problem(), "kernels compiled by this process are not kept", error.remedy());
    }
  }

  Error forbidden(const Spec& spec) const {
    return {
        ErrorCode::jit_forbidden,
        fmt::format("the kernel of {} is not in the cache{}, and jit is forbid", to_string(spec),
                    store ? fmt::format(" '{}'", store->folder().string()) : " (none is usable)"),
        "only kernels that were compiled ahead of time may run",
        fmt::format("run: tilewright compile '{}' --arch {}", to_string(spec.problem), to_string(spec.architecture))};
  }
};

Toolchain default_toolchain() {
  return {.generate = [](const Spec& spec) { return codegen::generate(spec); },
          .compiler_identity = compiler::identity,
          .compile = compiler::compile};
}

KernelCache::KernelCache(CacheOptions options, support::MessageCallback on_message, Toolchain toolchain)
    : options_(std::move(options)), on_message_(std::move(on_message)), toolchain_(std::move(toolchain)) {
  count_forks();
}

KernelCache::~KernelCache() {
  State* const last = state_.load();
  // A state from before a fork may hold locks that nobody will ever release: it is left alone.
  if (last != nullptr && last->generation == forks.load(std::memory_order_relaxed))
    delete last;
}

KernelCache::State& KernelCache::state() const {
  State* current = state_.load(std::memory_order_acquire);
  const unsigned generation = forks.load(std::memory_order_relaxed);
  if (current != nullptr && current->generation == generation) [[likely]]
    return *current;
  auto fresh = std::make_unique<State>(*this, generation);
  if (state_.compare_exchange_strong(current, fresh.get(), std::memory_order_acq_rel))
    return *fresh.release();
  return *current; // another thread was faster
}

std::shared_ptr<const CacheEntry> KernelCache::get(const Spec& spec) {
  State& here = state();
  if (auto entry = here.recall(spec)) [[likely]] {
    here.counts.memory_hits.fetch_add(1, std::memory_order_relaxed);
    return entry;
  }
  return here.join_or_obtain(spec);
}

std::shared_ptr<const CacheEntry> KernelCache::find(const Spec& spec) {
  State& here = state();
  if (auto entry = here.recall(spec)) {
    here.counts.memory_hits.fetch_add(1, std::memory_order_relaxed);
    return entry;
  }
  auto entry = here.look_up(here.request(spec));
  return entry ? here.remember(spec, entry) : nullptr;
}

CacheStatistics KernelCache::statistics() const {
  const auto& counts = state().counts;
  return {.memory_hits = counts.memory_hits,
          .disk_hits = counts.disk_hits,
          .read_only_hits = counts.read_only_hits,
          .remote_hits = counts.remote_hits,
          .compiles = counts.compiles,
          .joined = counts.joined,
          .lock_timeouts = counts.lock_timeouts,
          .corrupt_entries = counts.corrupt_entries,
          .failed_writes = counts.failed_writes};
}

} // namespace tilewright::cache
