// Times the backward pass: the whole call with each family's default schedules, and its kernels by themselves with each
// schedule that fits, interleaved:
//     time_backward [ROUNDS [CASE,...|all [FAMILY,... [whole]]]]
// One line each. The whole call counts as 2.5 times the forward pass; a kernel's TFLOP/s are those of the products that
// it does (dK/dV 4, dQ 3 of a forward pass's 2). Random inputs, out and lse from the forward kernel, random block lists
// of one length. Checks nothing: tests/gpu does.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "driver/cuda_executor.hpp"
#include "driver/device_memory.hpp"
#include "operators/backward.hpp"
#include "reference/convert.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

constexpr std::int64_t head_dim = 128;

struct Case {
  const char* name;
  Pattern pattern; // block lists: without their lists
  Extent3 canvas;  // dense: 1 x 1 x tokens
  std::int64_t heads, listed;
  double keys_per_query; // on average
};

struct Entry {
  std::string name;
  double flops; // 0: it has no products
  std::function<void()> run;
  std::vector<double> times = {};
};

class Bench {
public:
  Bench(std::shared_ptr<const cuda::CudaDevice> device, const Case& given)
      : device_(std::move(device)), case_(given), executor_(make_cuda_executor(device_)), pattern_(given.pattern) {
    const std::int64_t tokens = case_.canvas.volume();
    std::mt19937 generator(1);
    std::normal_distribution<double> normal;
    std::vector<std::uint16_t> values(std::size_t{1} << 20);
    for (auto& value : values)
      value = reference::encode(DataType::bf16, normal(generator));
    std::vector<std::uint16_t> host(static_cast<std::size_t>(tokens * case_.heads * head_dim));
    std::vector<TensorView> views;
    for (std::size_t tensor = 0; tensor < 8; ++tensor) {
      for (std::size_t i = 0; i < host.size(); ++i) // another part of the values for each tensor
        host[i] = values[(i + 7919 * tensor) % values.size()];
      views.push_back(TensorView::contiguous(upload(host), DataType::bf16, {1, tokens, case_.heads, head_dim}));
    }
    if (auto* lists = std::get_if<BlockList>(&pattern_))
      make_lists(*lists, generator);
    call_ = {.q = views[0],
             .k = views[1],
             .v = views[2],
             .out = views[3],
             .dout = views[4],
             .lse = TensorView::contiguous(allocate(static_cast<std::size_t>(tokens * case_.heads) * sizeof(float)),
                                           DataType::float32, {1, case_.heads, tokens}),
             .dq = views[5],
             .dk = views[6],
             .dv = views[7]};
    call_.workspace_bytes = Runtime::workspace_bytes(call_, pattern_);
    call_.workspace = allocate(call_.workspace_bytes);
    AttentionForward forward = operators::forward_call(call_);
    forward.lse = call_.lse;
    Runtime(executor_).attention_forward(forward, pattern_);
    forward_flops_ = 4.0 * head_dim * static_cast<double>(tokens * case_.heads) * case_.keys_per_query;
  }

  void run(int rounds, const std::vector<Family>& families, bool whole_alone) {
    std::vector<Entry> entries;
    for (const Family family : families) {
      auto runtime = std::make_shared<Runtime>(executor_, RuntimeOptions{.family = family});
      add(entries, fmt::format("whole {}", to_string(family)), forward_flops_ * 2.5,
          [this, runtime] { runtime->attention_backward(call_, pattern_); });
    }
    const operators::BackwardWorkspace workspace =
        operators::lay_out(call_, operators::check_backward(call_, pattern_), pattern_);
    if (workspace.transposed)
      add(entries, "transpose_lists", 0, [this, runtime = std::make_shared<Runtime>(executor_), workspace] {
        runtime->transpose_lists(*workspace.transposed);
      });
    time(entries, rounds);
    if (whole_alone)
      return;
    for (const Problem& step : backward_steps(Runtime::problem_of(call_, pattern_))) {
      entries.clear();
      for (const Family family : step.op == Operator::attention_backward_delta ? std::vector{Family::sm80} : families)
        add_schedules(entries, step, family, workspace);
      time(entries, rounds);
    }
  }

private:
  void* allocate(std::size_t bytes) {
    memory_.emplace_back(device_, bytes);
    return memory_.back().data();
  }
  template <class Value> void* upload(const std::vector<Value>& host) {
    void* const data = allocate(host.size() * sizeof(Value));
    memory_.back().copy_from_host(std::as_bytes(std::span(host)));
    return data;
  }

  void make_lists(BlockList& lists, std::mt19937& generator) {
    const std::int64_t tiles = case_.canvas.volume() / lists.tile.volume();
    const std::vector<std::int32_t> counts(static_cast<std::size_t>(case_.heads * tiles),
                                           static_cast<std::int32_t>(case_.listed));
    std::vector<std::int32_t> indices, all(static_cast<std::size_t>(tiles));
    for (std::int64_t list = 0; list < case_.heads * tiles; ++list) {
      std::iota(all.begin(), all.end(), 0);
      std::shuffle(all.begin(), all.end(), generator);
      std::sort(all.begin(), all.begin() + case_.listed);
      indices.insert(indices.end(), all.begin(), all.begin() + case_.listed);
    }
    lists.counts = TensorView::contiguous(upload(counts), DataType::int32, {1, case_.heads, tiles});
    lists.indices = TensorView::contiguous(upload(indices), DataType::int32, {1, case_.heads, tiles, case_.listed});
  }

  /// Runs it once; leaves out what cannot run, and says why.
  void add(std::vector<Entry>& entries, const std::string& name, double flops, std::function<void()> run) const {
    try {
      run();
      entries.push_back({name, flops, std::move(run)});
    } catch (const Error& error) {
      fmt::print("{} {}: {}\n", case_.name, name, std::string(error.what()).substr(0, 160));
    }
  }

  void add_schedules(std::vector<Entry>& entries, const Problem& step, Family family,
                     const operators::BackwardWorkspace& workspace) {
    const Architecture& gpu = executor_->device().architecture;
    const double work = step.op == Operator::attention_backward_key     ? 2.0
                        : step.op == Operator::attention_backward_query ? 1.5
                                                                        : 0.0; // forward passes
    for (const auto& candidate : schedule::candidates(step, gpu, family)) {
      if (!candidate.refusals.empty())
        continue;
      const Spec spec = schedule::insisted_spec(step, gpu, candidate.schedule);
      add(entries, fmt::format("{} {}", to_string(step).substr(19, 5), to_string(spec.schedule)), forward_flops_ * work,
          [this, spec, workspace, forward = operators::forward_call(call_),
           shape = operators::check_backward(call_, pattern_)] {
            operators::launch_backward(*executor_, *executor_->kernel(spec, nullptr), call_,
                                       {forward, pattern_, shape, spec}, workspace, {}, nullptr);
          });
    }
  }

  void time(std::vector<Entry>& entries, int rounds) const {
    const auto once = [&](const Entry& entry) {
      cuda::Stopwatch watch(device_);
      watch.start();
      entry.run();
      watch.stop();
      return watch.milliseconds();
    };
    for (double spent = 0; spent < 200;) // milliseconds: warm
      for (const Entry& entry : entries)
        spent += once(entry) + 1e-3;
    for (int round = 0; round < rounds; ++round)
      for (Entry& entry : entries)
        entry.times.push_back(once(entry));
    for (Entry& entry : entries) {
      std::sort(entry.times.begin(), entry.times.end());
      const double median = entry.times[entry.times.size() / 2];
      fmt::print("{} {:.3f} ms {:.0f} TFLOP/s {}\n", case_.name, median, entry.flops / median / 1e9, entry.name);
    }
    std::fflush(stdout);
  }

  std::shared_ptr<const cuda::CudaDevice> device_;
  Case case_;
  std::shared_ptr<Executor> executor_;
  Pattern pattern_;
  std::vector<cuda::DeviceMemory> memory_;
  AttentionBackward call_;
  double forward_flops_ = 0;
};

} // namespace

int main(int count, char** arguments) {
  try {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 15;
    const std::string chosen = count > 2 ? arguments[2] : "all", families = count > 3 ? arguments[3] : "sm90,sm80";
    const auto device = std::make_shared<const cuda::CudaDevice>(0);
    SlidingTile sliding{.canvas = {18, 48, 80}, .windows = {{3, 3, 3}}};
    const Case cases[] = {
        {"lists", BlockList{.canvas = {16, 48, 64}}, {16, 48, 64}, 12, 76, 76 * 64},
        {"sliding", sliding, {18, 48, 80}, 24, 0, 27 * 384},
        {"dense", Dense{}, {1, 1, 16384}, 12, 0, 16384},
    };
    std::vector<Family> wanted;
    for (const Family family : {Family::sm90, Family::sm80})
      if (families.find(to_string(family)) != std::string::npos)
        wanted.push_back(family);
    for (const Case& one : cases)
      if (chosen == "all" || chosen.find(one.name) != std::string::npos)
        Bench(device, one).run(rounds, wanted, count > 4);
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
