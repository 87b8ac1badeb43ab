// Times the sm90 family's backward kernels by themselves, with each schedule that fits, interleaved:
//     time_backward [ROUNDS]
// One line a kernel and schedule. TFLOP/s: of the products that the kernel does (dK/dV 4, dQ 3 of a forward pass's 2).
// Then what the best pair reaches by the common count, 2.5 times the forward pass. Random inputs; statistics are
// plausible, not those of a forward pass; block lists are random. Checks nothing: tests/gpu does.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <span>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "driver/cuda_executor.hpp"
#include "driver/device_memory.hpp"
#include "operators/launch.hpp"
#include "operators/launch_backward_sm90.hpp"
#include "reference/convert.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>
#include <tilewright/reference.hpp>

using namespace tilewright;

namespace {

constexpr Operator operators_timed[] = {Operator::attention_backward_key, Operator::attention_backward_query};

struct Case {
  const char* name;
  const char* problem; // behind the operator
  Extent3 canvas;      // dense: 1 x 1 x tokens
  std::int64_t heads, listed;
  double keys_per_query; // on average
};

class Bench {
public:
  Bench(std::shared_ptr<const cuda::CudaDevice> device, const Case& given) : device_(std::move(device)), case_(given) {
    const std::int64_t tokens = case_.canvas.volume(), d = 128;
    executor_ = make_cuda_executor(device_);
    std::mt19937 generator(1);
    std::normal_distribution<double> normal;
    std::vector<std::uint16_t> values(std::size_t{1} << 20);
    for (auto& value : values)
      value = reference::encode(DataType::bf16, normal(generator));
    std::vector<std::uint16_t> host(static_cast<std::size_t>(tokens * case_.heads * d));
    for (std::size_t tensor = 0; tensor < 7; ++tensor) {
      for (std::size_t i = 0; i < host.size(); ++i) // another part of the values for each tensor
        host[i] = values[(i + 7919 * tensor) % values.size()];
      tensors_.push_back(upload(host));
    }
    rows_ = (tokens + row_statistics_multiple - 1) / row_statistics_multiple * row_statistics_multiple;
    std::vector<float> statistics(static_cast<std::size_t>(rows_ * case_.heads),
                                  static_cast<float>(-std::log2(case_.keys_per_query) - 0.72));
    exponents_ = upload(statistics);
    std::fill(statistics.begin(), statistics.end(), 0.01f);
    deltas_ = upload(statistics);
    if (case_.listed > 0)
      make_lists(tokens / 64, generator);
  }

  void run(int rounds) {
    double best[2] = {1e30, 1e30};
    const double forward = 4.0 * 128 * static_cast<double>(case_.canvas.volume()) * case_.keys_per_query *
                           static_cast<double>(case_.heads);
    for (int which = 0; which < 2; ++which) {
      Problem problem = parse_problem(std::string(to_string_of(operators_timed[which])) + ":" + case_.problem);
      struct Entry {
        Spec spec;
        std::shared_ptr<const Kernel> kernel;
        std::vector<double> times;
      };
      std::vector<Entry> entries;
      for (const auto& candidate : schedule::candidates(problem, executor_->device().architecture, Family::sm90)) {
        if (!candidate.refusals.empty())
          continue;
        try {
          const Spec spec = schedule::insisted_spec(problem, executor_->device().architecture, candidate.schedule);
          entries.push_back({spec, executor_->kernel(spec, nullptr), {}});
        } catch (const Error& error) {
          fmt::print("{} {}: {}\n", case_.name, to_string(candidate.schedule),
                     std::string(error.what()).substr(0, 120));
        }
      }
      double spent = 0;
      while (spent < 300) // milliseconds: warm
        for (const Entry& entry : entries)
          spent += time(entry.spec, *entry.kernel);
      for (int round = 0; round < rounds; ++round)
        for (Entry& entry : entries)
          entry.times.push_back(time(entry.spec, *entry.kernel));
      for (Entry& entry : entries) {
        std::sort(entry.times.begin(), entry.times.end());
        const double median = entry.times[entry.times.size() / 2];
        best[which] = std::min(best[which], median);
        fmt::print("{} {} {:.3f} ms {:.0f} TFLOP/s  {}\n", case_.name, which == 0 ? "key" : "query", median,
                   forward * (which == 0 ? 2.0 : 1.5) / median / 1e9, to_string(entry.spec.schedule));
      }
    }
    fmt::print("{} best pair {:.3f} ms: {:.0f} TFLOP/s by 2.5 x forward\n", case_.name, best[0] + best[1],
               forward * 2.5 / (best[0] + best[1]) / 1e9);
  }

private:
  static std::string_view to_string_of(Operator op) {
    return op == Operator::attention_backward_key ? "attention_backward_key" : "attention_backward_query";
  }

  template <class Value> std::shared_ptr<cuda::DeviceMemory> upload(const std::vector<Value>& host) {
    auto memory = std::make_shared<cuda::DeviceMemory>(device_, host.size() * sizeof(Value));
    memory->copy_from_host(std::as_bytes(std::span(host)));
    return memory;
  }

  void make_lists(std::int64_t tiles, std::mt19937& generator) {
    const auto entries = static_cast<std::size_t>(tiles * case_.listed);
    std::vector<std::int32_t> counts(static_cast<std::size_t>(case_.heads * tiles),
                                     static_cast<std::int32_t>(case_.listed)),
        indices, offsets, transposed;
    std::vector<std::int32_t> all(static_cast<std::size_t>(tiles));
    for (std::int64_t head = 0; head < case_.heads; ++head) {
      std::vector<std::vector<std::int32_t>> seen_by(static_cast<std::size_t>(tiles));
      for (std::int32_t tile = 0; tile < tiles; ++tile) {
        std::iota(all.begin(), all.end(), 0);
        std::shuffle(all.begin(), all.end(), generator);
        std::sort(all.begin(), all.begin() + case_.listed);
        for (std::int64_t i = 0; i < case_.listed; ++i) {
          indices.push_back(all[static_cast<std::size_t>(i)]);
          seen_by[static_cast<std::size_t>(indices.back())].push_back(tile);
        }
      }
      const std::size_t first = transposed.size();
      offsets.push_back(0);
      for (const auto& list : seen_by) {
        transposed.insert(transposed.end(), list.begin(), list.end());
        offsets.push_back(static_cast<std::int32_t>(transposed.size() - first));
      }
    }
    counts_ = upload(counts);
    indices_ = upload(indices);
    offsets_ = upload(offsets);
    transposed_ = upload(transposed);
    entries_ = static_cast<std::int64_t>(entries);
  }

  double time(const Spec& spec, const Kernel& kernel) {
    const std::int64_t tokens = case_.canvas.volume();
    const auto view = [&](int tensor) {
      return TensorView::contiguous(tensors_[static_cast<std::size_t>(tensor)]->data(), DataType::bf16,
                                    {1, tokens, case_.heads, 128});
    };
    const AttentionForward call{.q = view(0), .k = view(1), .v = view(2), .out = view(3)};
    Pattern pattern = Dense{};
    if (case_.listed > 0) {
      BlockList lists;
      lists.canvas = case_.canvas;
      lists.tile = spec.problem.tile;
      lists.counts = TensorView::contiguous(counts_->data(), DataType::int32, {1, case_.heads, tokens / 64});
      lists.indices =
          TensorView::contiguous(indices_->data(), DataType::int32, {1, case_.heads, tokens / 64, case_.listed});
      pattern = lists;
    } else if (spec.problem.pattern == PatternKind::sliding_tile) {
      SlidingTile sliding;
      sliding.canvas = case_.canvas;
      sliding.tile = spec.problem.tile;
      sliding.windows = {spec.problem.window};
      pattern = sliding;
    }
    const operators::CallShape shape = operators::check_call(call, pattern);
    const operators::LaunchRequest request{call, pattern, shape, spec};
    cuda::Stopwatch watch(device_);
    watch.start();
    std::visit(
        [&](const auto& chosen) {
          const auto parameters = operators::pattern_parameters(request, chosen);
          AttentionBackwardArguments<std::decay_t<decltype(parameters)>> arguments{};
          arguments.call = {operators::attention_parameters(request, spec.schedule.block_q, spec.schedule.block_k),
                            parameters};
          BackwardParameters& b = arguments.backward;
          b.output_gradient = tensors_[3]->data();
          b.query_gradient = tensors_[4]->data();
          b.key_gradient = tensors_[5]->data();
          b.value_gradient = tensors_[6]->data();
          const Strides strides = operators::strides_of(view(0), call.layout);
          b.output_gradient_strides = b.query_gradient_strides = b.key_gradient_strides = b.value_gradient_strides =
              strides;
          b.statistics = {
              static_cast<float*>(exponents_->data()), static_cast<float*>(deltas_->data()), rows_ * case_.heads, rows_,
              static_cast<std::int32_t>(rows_),        static_cast<std::int32_t>(rows_)};
          if (case_.listed > 0)
            b.transposed = {static_cast<const std::int32_t*>(offsets_->data()),
                            static_cast<const std::int32_t*>(transposed_->data()),
                            0,
                            tokens / 64 + 1,
                            0,
                            entries_};
          b.scale = 0.0884f;
          operators::launch_backward_sm90(*executor_, kernel, spec, arguments, 1, 1, nullptr);
        },
        pattern);
    watch.stop();
    return watch.milliseconds();
  }

  std::shared_ptr<const cuda::CudaDevice> device_;
  Case case_;
  std::shared_ptr<Executor> executor_;
  std::vector<std::shared_ptr<cuda::DeviceMemory>> tensors_; // q, k, v, dout, dq, dk, dv
  std::shared_ptr<cuda::DeviceMemory> exponents_, deltas_, counts_, indices_, offsets_, transposed_;
  std::int64_t rows_ = 0, entries_ = 0;
};

} // namespace

int main(int count, char** arguments) {
  try {
    const int rounds = count > 1 ? std::atoi(arguments[1]) : 15;
    const auto device = std::make_shared<const cuda::CudaDevice>(0);
    const Case cases[] = {
        {"lists", "pattern=block_list,tile=4x4x4,edges=full", {16, 48, 64}, 12, 76, 76 * 64},
        {"sliding", "pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=0,edges=full", {18, 48, 80}, 24, 0, 27 * 384},
        {"dense", "pattern=dense,edges=full", {1, 1, 16384}, 12, 0, 16384},
    };
    for (const Case& one : cases)
      Bench(device, one).run(rounds);
    return 0;
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
