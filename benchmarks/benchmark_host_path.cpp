// What a prepared call costs the caller's thread besides the driver: checks, look-up, parameters. The executor does
// nothing. Target: under 2 microseconds.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "driver/executor.hpp"
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

class IdleKernel final : public Kernel {
public:
  [[nodiscard]] const KernelReport& report() const noexcept override { return report_; }
  [[nodiscard]] KernelOrigin origin() const noexcept override { return KernelOrigin::memory; }

private:
  KernelReport report_;
};

class IdleExecutor final : public Executor {
public:
  explicit IdleExecutor(Architecture architecture) {
    device_.architecture = architecture;
    device_.multiprocessors = 132;
  }
  [[nodiscard]] const DeviceDescription& device() const noexcept override { return device_; }
  std::shared_ptr<const Kernel> kernel(const Spec&, Stream) override { return std::make_shared<IdleKernel>(); }
  void launch(const Kernel&, const LaunchShape&, const void* parameters, std::size_t, Stream) override {
    benchmark::DoNotOptimize(parameters);
  }
  TensorMap encode(const TensorMapRequest&) override { return {}; }
  void check_pointer(const void*, const char*) const override {}
  void read_back(void*, const void*, std::size_t, Stream) override {}

private:
  DeviceDescription device_;
};

constexpr Canvas canvas{18, 48, 80};
constexpr std::int64_t heads = 24, head_dim = 128, text = 256;
alignas(128) std::byte memory[128]; // addresses only: nothing reads or writes

AttentionForward call_of(std::int64_t tokens) {
  const auto view = TensorView::contiguous(memory, DataType::bf16, {1, tokens, heads, head_dim});
  return {.q = view,
          .k = view,
          .v = view,
          .out = view,
          .lse = TensorView::contiguous(memory, DataType::float32, {1, heads, tokens})};
}

void measure(benchmark::State& state, const AttentionForward& call, const Pattern& pattern, Family family) {
  Runtime runtime(std::make_shared<IdleExecutor>(Architecture{9, 0, 0}), {.family = family});
  runtime.attention_forward(call, pattern);
  for (auto _ : state)
    runtime.attention_forward(call, pattern);
}

void dense(benchmark::State& state, Family family) { measure(state, call_of(canvas.volume()), Dense{}, family); }

void sliding_tile(benchmark::State& state, Family family) {
  measure(state, call_of(canvas.volume() + text),
          SlidingTile{.canvas = canvas, .windows = {{3, 3, 3}}, .text_length = text}, family);
}

void sliding_tile_per_head(benchmark::State& state, Family family) {
  measure(state, call_of(canvas.volume()),
          SlidingTile{.canvas = canvas, .windows = std::vector<Window>(heads, {3, 3, 3})}, family);
}

void block_list(benchmark::State& state, Family family) {
  const std::int64_t tiles = canvas.volume() / Tile{6, 8, 8}.volume();
  measure(state, call_of(canvas.volume()),
          BlockList{.canvas = canvas,
                    .tile = {6, 8, 8},
                    .counts = TensorView::contiguous(memory, DataType::int32, {1, heads, tiles}),
                    .indices = TensorView::contiguous(memory, DataType::int32, {1, heads, tiles, tiles})},
          family);
}

BENCHMARK_CAPTURE(dense, sm80, Family::sm80);
BENCHMARK_CAPTURE(dense, sm90, Family::sm90);
BENCHMARK_CAPTURE(sliding_tile, sm80, Family::sm80);
BENCHMARK_CAPTURE(sliding_tile, sm90, Family::sm90);
BENCHMARK_CAPTURE(sliding_tile_per_head, sm80, Family::sm80);
BENCHMARK_CAPTURE(sliding_tile_per_head, sm90, Family::sm90);
BENCHMARK_CAPTURE(block_list, sm80, Family::sm80);
BENCHMARK_CAPTURE(block_list, sm90, Family::sm90);

/// Checks and the problem alone, without look-up and launch.
void problem_of(benchmark::State& state) {
  const AttentionForward call = call_of(canvas.volume());
  const Pattern pattern = SlidingTile{.canvas = canvas, .windows = {{3, 3, 3}}};
  for (auto _ : state)
    benchmark::DoNotOptimize(Runtime::problem_of(call, pattern));
}
BENCHMARK(problem_of);

/// prepare() of a closed problem that is prepared: little but the look-up.
void look_up(benchmark::State& state) {
  Runtime runtime(std::make_shared<IdleExecutor>(Architecture{9, 0, 0}));
  const Problem problem = Runtime::problem_of(call_of(canvas.volume()), Dense{});
  runtime.prepare(problem);
  for (auto _ : state)
    runtime.prepare(problem);
}
BENCHMARK(look_up);

} // namespace

BENCHMARK_MAIN();
