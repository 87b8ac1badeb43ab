// The sm90 family's backward kernels in the emulator, against gradients computed pair by pair in float64.
#include <doctest/doctest.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "schedule/feasibility.hpp"
#include "schedule/heuristic.hpp"
#include "support_backward_problem.hpp"
#include "support_random_backward.hpp"
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

/// What is wrong with both kernels' gradients under two orders of threads; they must be the same bits.
std::string check(std::uint64_t seed, const testing::RandomLimits& limits,
                  const std::function<Spec(const Problem&)>& spec_of) {
  testing::BackwardProblem problem(seed, limits);
  std::string wrong;
  for (const Operator op : {Operator::attention_backward_key, Operator::attention_backward_query})
    try {
      const Spec spec = spec_of(problem.problem(op));
      std::vector<std::byte> first, second;
      const auto run = [&](std::uint64_t emulator_seed, std::vector<std::byte>& bytes) {
        const auto executor = make_emulator({.seed = emulator_seed, .architecture = hopper});
        const std::string complaint = problem.check(*executor, spec, bytes);
        if (!complaint.empty())
          wrong += fmt::format("\n{}{}", to_string(spec), complaint);
      };
      run(seed, first);
      run(seed + 1000003, second);
      if (first != second)
        wrong += fmt::format("\n{}: gradients differ between runs", to_string(spec));
    } catch (const Error& error) {
      wrong += fmt::format("\n{}", error.what());
    }
  return wrong.empty() ? "" : fmt::format("seed {}: {}{}", seed, problem.description(), wrong);
}

Spec default_spec(const Problem& problem) { return schedule::default_spec(problem, {9, 0, 0}, Family::sm90); }

} // namespace

TEST_CASE("backward kernels of sm90, default schedules: every pattern, type, head size and layout") {
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const std::int32_t head_dim : {64, 128})
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          testing::RandomLimits limits = small_problems();
          limits.pattern = pattern;
          limits.dtype = dtype;
          limits.head_dim = head_dim;
          limits.layout = layout;
          CHECK(check(static_cast<std::uint64_t>(head_dim) + (dtype == DataType::bf16 ? 1 : 0), limits, default_spec) ==
                "");
        }
}

TEST_CASE("backward kernels of sm90, schedules of every form") {
  const std::string rest = "family=sm90,blocks_per_processor=1,cluster=1,overlap=0,softmax=online,";
  const std::pair<Operator, std::string> schedules[] = {
      {Operator::attention_backward_key,
       "block_q=64,block_k=128,stages=2,consumers=2,consumer_registers=232,producer_registers=40"},
      {Operator::attention_backward_key,
       "block_q=64,block_k=64,stages=1,consumers=2,consumer_registers=224,producer_registers=56"},
      {Operator::attention_backward_key,
       "block_q=64,block_k=64,stages=4,consumers=2,consumer_registers=224,producer_registers=56"},
      {Operator::attention_backward_query,
       "block_q=192,block_k=64,stages=3,consumers=3,consumer_registers=160,producer_registers=32"},
      {Operator::attention_backward_query,
       "block_q=64,block_k=64,stages=2,consumers=3,consumer_registers=160,producer_registers=32"},
      {Operator::attention_backward_query,
       "block_q=64,block_k=64,stages=3,consumers=2,consumer_registers=232,producer_registers=40"}};
  for (const auto& [op, text] : schedules) {
    CAPTURE(text);
    const Schedule schedule = parse_schedule(rest + text);
    int fitting = 0;
    for (std::uint64_t seed = 0; fitting < 2 && seed < 300; ++seed) {
      Problem problem = testing::RandomProblem(seed, small_problems()).problem();
      problem.op = op;
      if (!schedule::reasons_against(problem, schedule, hopper).empty())
        continue;
      ++fitting;
      const Operator chosen = op;
      CHECK(check(seed, small_problems(), [&](const Problem& of) {
              return of.op == chosen ? schedule::insisted_spec(of, {9, 0, 0}, schedule) : default_spec(of);
            }) == "");
    }
    CHECK(fitting == 2);
  }
}

TEST_CASE("backward pass of sm90 from end to end: every pattern") {
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const std::uint64_t seed : {5, 6}) {
      testing::RandomLimits limits = small_problems();
      limits.pattern = pattern;
      std::string wrong;
      try {
        testing::RandomBackward problem(seed, limits);
        Runtime runtime(make_emulator({.seed = seed, .architecture = hopper}), {});
        wrong = problem.check(
            [&](const AttentionBackward& call, const Pattern& of) { runtime.attention_backward(call, of); });
      } catch (const Error& error) {
        wrong = error.what();
      }
      CHECK(wrong == "");
    }
}
