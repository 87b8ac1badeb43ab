// The sm90 family's backward kernels in the emulator, against the float64 reference.
#include <doctest/doctest.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "schedule/feasibility.hpp"
#include "support_random_backward.hpp"
#include "support_seeds.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

constexpr Architecture hopper{9, 0, 'a'};

testing::RandomLimits small_problems() {
  testing::RandomLimits limits;
  limits.max_tokens = 600;
  limits.max_text = 200;
  limits.max_flops = 1e7;
  limits.any_strides = false;
  limits.query_scale_max = 2;
  return limits;
}

/// What is wrong with the gradients under so many orders of threads; they must be the same bits.
std::string check(std::uint64_t seed, const testing::RandomLimits& limits, RuntimeOptions options = {},
                  double scale = 1, std::uint64_t emulator_seeds = 2) {
  options.family = Family::sm90;
  testing::RandomBackward problem(seed, limits, scale);
  std::vector<std::byte> first;
  for (std::uint64_t emulator_seed = 0; emulator_seed < emulator_seeds; ++emulator_seed)
    try {
      Runtime runtime(make_emulator(testing::options_of_seed(hopper, emulator_seed)), options);
      const std::string wrong = problem.check(
          [&](const AttentionBackward& call, const Pattern& pattern) { runtime.attention_backward(call, pattern); });
      if (!wrong.empty())
        return fmt::format("seed {}: {}", seed, wrong);
      if (first.empty())
        first = problem.gradient_bytes();
      else if (first != problem.gradient_bytes())
        return fmt::format("seed {}: emulator seed {} gives other bits than 0", seed, emulator_seed);
    } catch (const Error& error) {
      return fmt::format("seed {}: {}", seed, error.what());
    }
  return "";
}

} // namespace

TEST_CASE("backward kernels of sm90, default schedules: every pattern, type, head size and layout under eight seeds") {
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const std::int32_t head_dim : {64, 128})
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          testing::RandomLimits limits = small_problems();
          limits.pattern = pattern;
          limits.dtype = dtype;
          limits.head_dim = head_dim;
          limits.layout = layout;
          CHECK(check(static_cast<std::uint64_t>(head_dim) + (dtype == DataType::bf16 ? 1 : 0), limits, {}, 1,
                      testing::emulator_seeds()) == "");
        }
}

TEST_CASE("backward kernels of sm90, schedules of every form") {
  const std::string rest = "family=sm90,cluster=1,overlap=0,softmax=online,";
  const std::pair<Operator, std::string> schedules[] = {
      {Operator::attention_backward_key, "block_q=64,block_k=128,stages=2,blocks_per_processor=1,consumers=2,consumer_"
                                         "registers=232,producer_registers=40"},
      {Operator::attention_backward_key, "block_q=64,block_k=64,stages=1,blocks_per_processor=1,consumers=2,consumer_"
                                         "registers=224,producer_registers=56"},
      {Operator::attention_backward_key, "block_q=64,block_k=64,stages=4,blocks_per_processor=1,consumers=2,consumer_"
                                         "registers=224,producer_registers=56"},
      {Operator::attention_backward_key, "block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,consumer_"
                                         "registers=224,producer_registers=32"},
      {Operator::attention_backward_query, "block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,consumer_"
                                           "registers=224,producer_registers=32"},
      {Operator::attention_backward_query, "block_q=192,block_k=64,stages=3,blocks_per_processor=1,consumers=3,"
                                           "consumer_registers=160,producer_registers=32"},
      {Operator::attention_backward_query, "block_q=64,block_k=64,stages=2,blocks_per_processor=1,consumers=3,consumer_"
                                           "registers=160,producer_registers=32"},
      {Operator::attention_backward_query, "block_q=64,block_k=64,stages=3,blocks_per_processor=1,consumers=2,consumer_"
                                           "registers=232,producer_registers=40"}};
  for (const auto& [op, line] : schedules) {
    const std::string& text = line;
    CAPTURE(text);
    const Schedule schedule = parse_schedule(rest + text);
    int fitting = 0;
    for (std::uint64_t seed = 0; fitting < 2 && seed < 300; ++seed) {
      Problem problem = testing::RandomProblem(seed, small_problems()).problem();
      problem.op = op;
      if (!schedule::reasons_against(problem, schedule, hopper).empty())
        continue;
      ++fitting;
      RuntimeOptions options;
      (op == Operator::attention_backward_key ? options.backward_key_schedule : options.backward_query_schedule) =
          schedule;
      CHECK(check(seed, small_problems(), options) == "");
    }
    CHECK(fitting == 2);
  }
}

TEST_CASE("backward kernels of sm90, activations of every scale") {
  testing::RandomLimits limits = small_problems();
  for (const DataType dtype : {DataType::bf16, DataType::fp16})
    for (const double scale : {4.0, 16.0})
      for (const std::uint64_t seed : {201U, 202U, 203U}) {
        limits.dtype = dtype;
        CHECK(check(seed, limits, {}, scale) == "");
      }
}
