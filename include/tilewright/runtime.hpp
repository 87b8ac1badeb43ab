// The runtime: operators on one device. The one header that most host applications need.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string_view>

#include <tilewright/cache.hpp>
#include <tilewright/error.hpp>
#include <tilewright/pattern.hpp>
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>
#include <tilewright/types.hpp>

namespace tilewright {

class Executor;

/// The tensors of one forward call.
///
/// q, k, v, out  bf16 or fp16, [batch, tokens, heads, head_dim] (raster) or [batch, heads, tokens, head_dim]
///               (tiled); head_dim has stride 1, every other stride is a multiple of 16 bytes, pointers are
///               aligned to 16 bytes. k and v have heads that divide q's (grouped heads).
/// lse           float32 [batch, heads, query tokens], natural logarithm, tokens with stride 1; optional
/// scale         multiplies q k^T; 1/sqrt(head_dim) where none is given
struct AttentionForward {
  TensorView q, k, v, out;
  std::optional<TensorView> lse{};
  Layout layout = Layout::raster;
  std::optional<float> scale{};
};

struct RuntimeOptions {
  int device = -1;                    // CUDA ordinal; -1: the calling thread's current device, else 0
  Family family = Family::automatic;  // insist on a kernel family; unsupported says why where it is refused
  std::optional<Schedule> schedule{}; // insist on a schedule, for measuring
  CacheOptions cache{};
  std::function<void(std::string_view)> on_message{}; // warnings in three parts; default: none
};

/// Operators on one device. Thread-safe; calls enqueue work on the caller's stream and return; nothing
/// synchronises and nothing is allocated on the device. Several runtimes, for several devices, may live in one process.
class Runtime {
public:
  /// A CUDA device. Throws no_device, saying what was looked for.
  explicit Runtime(RuntimeOptions options = {});
  /// Any executor, for example tilewright::make_emulator().
  explicit Runtime(std::shared_ptr<Executor> executor, RuntimeOptions options = {});
  ~Runtime();
  Runtime(Runtime&&) noexcept;
  Runtime& operator=(Runtime&&) noexcept;

  /// out = softmax(scale q k^T + mask) v, with the mask that the pattern describes. Throws before anything is
  /// enqueued or written; safe inside graph capture once the problem is prepared.
  void attention_forward(const AttentionForward& call, const Pattern& pattern, Stream stream = nullptr);

  /// Compiles, or fetches from the cache, and loads every variant of the problem; launches nothing.
  void prepare(const Problem& problem);

  /// The problem of a call, with nothing open. What `attention_forward` looks its kernel up by.
  [[nodiscard]] static Problem problem_of(const AttentionForward& call, const Pattern& pattern);

  /// The spec that this runtime uses for a closed problem. Throws unsupported with the reasons.
  [[nodiscard]] Spec spec_of(const Problem& problem) const;

  [[nodiscard]] Executor& executor() noexcept;

private:
  struct State;
  std::unique_ptr<State> state_;
};

} // namespace tilewright
