#include "cases.hpp"

#include <stdexcept>

#include <fmt/format.h>

#include "schedule/feasibility.hpp"
#include "support_random_backward.hpp"
#include "support_tile_kernels.hpp"
#include "support_video_sparse.hpp"
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::mutation {
namespace {

using testing::RandomBackward;
using testing::RandomLimits;
using testing::RandomProblem;
using testing::RandomVideoSparse;

constexpr Architecture ampere{8, 0, 0}, hopper{9, 0, 'a'};
constexpr std::uint64_t most_seeds = 4000; // that are tried for a problem that fits

/// What a random attention problem must be like.
struct Wanted {
  PatternKind pattern;
  Layout layout;
  std::string text = {};          // a part of the problem's line
  std::int64_t least_keys = 1;    // rows of k
  double query_scale = 1;
  std::int32_t head_dim = 64;
  DataType dtype = DataType::bf16;
  std::string described = {};     // a part of the description
  bool grouped = false;           // several query heads share keys
  std::int64_t max_tokens = 400;
  std::uint64_t first_seed = 0;
};

RandomLimits limits_of(const Wanted& wanted) {
  RandomLimits limits;
  limits.pattern = wanted.pattern;
  limits.layout = wanted.layout;
  limits.dtype = wanted.dtype;
  limits.head_dim = wanted.head_dim;
  limits.max_tokens = wanted.max_tokens;
  limits.max_text = 160;
  limits.max_flops = 1e7;
  limits.any_strides = false;
  limits.query_scale_max = wanted.query_scale;
  return limits;
}

/// The first seed whose problem is as wanted and takes this schedule, if there is one.
std::uint64_t find_seed(const Wanted& wanted, Operator op, const std::string& schedule) {
  const RandomLimits limits = limits_of(wanted);
  for (std::uint64_t seed = wanted.first_seed; seed < wanted.first_seed + most_seeds; ++seed) {
    const RandomProblem random(seed, limits);
    const AttentionForward& call = random.call();
    const std::size_t head_axis = wanted.layout == Layout::raster ? 2 : 1;
    Problem problem = random.problem();
    problem.op = op;
    if (to_string(problem).find(wanted.text) != std::string::npos &&
        random.description().find(wanted.described) != std::string::npos && call.lse &&
        call.k.extents[3 - head_axis] >= wanted.least_keys &&
        (!wanted.grouped || call.q.extents[head_axis] > call.k.extents[head_axis]) &&
        (schedule.empty() || schedule::reasons_against(problem, parse_schedule(schedule), hopper).empty()))
      return seed;
  }
  throw std::runtime_error(fmt::format("no random problem for \"{}\" \"{}\" with {}", wanted.text, wanted.described,
                                       schedule));
}

RuntimeOptions options_with(Family family, const std::string& schedule = {}) {
  RuntimeOptions options;
  options.cache.folder = "/nonexistent"; // no tuned schedules
  options.family = family;
  if (!schedule.empty())
    options.schedule = parse_schedule(schedule);
  return options;
}

CaseMaker forward(std::string name, const Wanted& wanted, const std::string& schedule) {
  return {name, [=] {
            const std::uint64_t seed = find_seed(wanted, Operator::attention_forward, schedule);
            const auto problem = std::make_shared<RandomProblem>(seed, limits_of(wanted));
            const RuntimeOptions options = options_with(Family::automatic, schedule);
            return Case{name, hopper, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options);
                          return problem->check([&](const AttentionForward& call, const Pattern& pattern) {
                            runtime.attention_forward(call, pattern);
                          });
                        }};
          }};
}

/// Beyond RandomBackward's own check: without its allowance for gradients that are 0 but for rounding, and row by row.
std::string strict_complaint(const AttentionBackward& call, const reference::Gradients& expected) {
  const double tolerance = testing::BackwardTolerances::of(call.q.dtype).relative_l2;
  std::string wrong;
  const auto compare = [&](const char* name, const TensorView& view, const std::vector<double>& wanted) {
    const double error = reference::output_error(reference::read_tensor(view, call.layout), wanted).relative_l2;
    if (!(error <= tolerance))
      wrong += fmt::format("{}: relative L2 error {:.3g} > {:.3g} ", name, error, tolerance);
  };
  compare("dq", call.dq, expected.dq);
  compare("dk", call.dk, expected.dk);
  compare("dv", call.dv, expected.dv);
  return wrong;
}

struct BackwardSchedules {
  Family family = Family::automatic;
  std::string key = {}, query = {};
};

CaseMaker backward(std::string name, const Architecture& architecture, const Wanted& wanted,
                   const BackwardSchedules& schedules = {}) {
  return {name, [=] {
            const std::uint64_t seed =
                schedules.key.empty() ? find_seed(wanted, Operator::attention_backward_query, schedules.query)
                                      : find_seed(wanted, Operator::attention_backward_key, schedules.key);
            const auto problem = std::make_shared<RandomBackward>(seed, limits_of(wanted));
            const auto expected = std::make_shared<const reference::Gradients>(
                reference::attention_backward(problem->call(), problem->pattern()));
            RuntimeOptions options = options_with(schedules.family);
            if (!schedules.key.empty())
              options.backward_key_schedule = parse_schedule(schedules.key);
            if (!schedules.query.empty())
              options.backward_query_schedule = parse_schedule(schedules.query);
            return Case{name, architecture, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options);
                          const std::string wrong =
                              problem->check([&](const AttentionBackward& call, const Pattern& pattern) {
                                runtime.attention_backward(call, pattern);
                              });
                          return wrong.empty() ? strict_complaint(problem->call(), *expected) : wrong;
                        }};
          }};
}

CaseMaker video_sparse(std::string name, const Architecture& architecture, std::vector<std::string> described,
                       std::uint64_t first_seed = 0) {
  return {name, [=] {
            testing::VideoSparseLimits limits;
            limits.max_tiles = 12;
            limits.max_tokens = 800;
            limits.max_flops = 6e6;
            limits.head_dim = 64;
            for (std::uint64_t seed = first_seed; seed < first_seed + most_seeds; ++seed) {
              const auto problem = std::make_shared<RandomVideoSparse>(seed, limits);
              const std::string text = problem->description();
              if (std::any_of(described.begin(), described.end(),
                              [&](const std::string& part) { return text.find(part) == std::string::npos; }))
                continue;
              return Case{name, architecture, [=](const std::shared_ptr<Executor>& executor) {
                            Runtime runtime(executor, options_with(Family::automatic));
                            return problem->check(runtime, [&](const VideoSparseAttention& call) {
                              runtime.video_sparse_attention(call);
                            });
                          }};
            }
            throw std::runtime_error("no random problem for " + name);
          }};
}

/// sm_86 has the least shared memory: strips of 16 x 1600 scores do not fit it.
CaseMaker selection(std::string name, const testing::SelectSizes& sizes, DataType dtype = DataType::bf16,
                    std::int64_t head_dim = 64) {
  return {name, [=] {
            return Case{name, {8, 6, 0}, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options_with(Family::automatic));
                          return testing::select_complaint(runtime, sizes, dtype, head_dim, 5);
                        }};
          }};
}

CaseMaker lists(std::string name, const testing::MaskSizes& sizes) {
  return {name, [=] {
            return Case{name, ampere, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options_with(Family::automatic));
                          return testing::list_complaint(runtime, sizes, 7);
                        }};
          }};
}

const std::string sm80 = "family=sm80,block_q=64,block_k=64,stages=3,warps=4,blocks_per_processor=1,softmax=online";
const std::string sm80_lazy = "family=sm80,block_q=64,block_k=64,stages=2,warps=2,blocks_per_processor=1,softmax=lazy";
const std::string two = "family=sm90,block_q=128,block_k=64,blocks_per_processor=1,consumers=2,consumer_registers=232,"
                        "producer_registers=40,";
const std::string one = "family=sm90,block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                        "consumer_registers=208,producer_registers=40,cluster=1,";
const std::string merged = "family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,consumers=2,"
                           "consumer_registers=232,producer_registers=40,stages=3,";
const std::string backward_sm90 = "family=sm90,blocks_per_processor=1,cluster=1,overlap=0,softmax=online,";
const std::string keys_shared = backward_sm90 + "block_q=64,block_k=128,stages=2,consumers=2,consumer_registers=232,"
                                                "producer_registers=40";
const std::string keys_apart = backward_sm90 + "block_q=64,block_k=64,stages=2,consumers=2,consumer_registers=224,"
                                               "producer_registers=56";
const std::string queries_shared = backward_sm90 + "block_q=192,block_k=64,stages=3,consumers=3,"
                                                   "consumer_registers=160,producer_registers=32";
const std::string queries_apart = backward_sm90 + "block_q=64,block_k=64,stages=3,consumers=2,consumer_registers=232,"
                                                  "producer_registers=40";

} // namespace

std::vector<CaseMaker> all_cases() {
  using enum PatternKind;
  using enum Layout;
  return {
      // attention_forward_sm80
      forward("sm80 dense", {dense, raster, "edges=clipped", 200, 1, 64, DataType::bf16, "", true}, sm80),
      forward("sm80 sliding", {sliding_tile, raster, "text=1,edges=clipped", 200}, sm80_lazy),
      forward("sm80 sliding tiled", {sliding_tile, tiled, "text=1,edges=clipped", 200}, sm80),
      forward("sm80 lists tiled", {block_list, tiled, "edges=sized"}, sm80_lazy),
      forward("sm80 lists", {block_list, raster, "edges=clipped", 100, 1, 64, DataType::fp16}, sm80),
      // attention_forward_sm90
      forward("sm90 dense", {dense, raster, "edges=full", 500, 64, 64, DataType::bf16, "", false, 640},
              two + "stages=3,cluster=1,overlap=1,softmax=fixed"),
      forward("sm90 dense tiled", {dense, tiled, "edges=clipped", 200}, two + "stages=2,cluster=2,overlap=1,softmax=online"),
      forward("sm90 sliding lazy", {sliding_tile, raster, "text=1,edges=clipped", 200, 16},
              one + "overlap=0,softmax=lazy"),
      forward("sm90 sliding tiled", {sliding_tile, tiled, "text=1,edges=clipped", 200}, one + "overlap=1,softmax=fixed"),
      forward("sm90 sliding per head", {sliding_tile, raster, "window=per_head"}, one + "overlap=0,softmax=online"),
      forward("sm90 merged tiled", {block_list, tiled, "edges=sized"}, merged + "overlap=1,softmax=lazy"),
      forward("sm90 merged", {block_list, raster, "edges=clipped"}, merged + "overlap=0,softmax=fixed"),
      // attention_backward_*
      backward("sm80 backward dense", ampere, {dense, raster, "edges=clipped", 100, 1, 64, DataType::bf16, "", true}),
      backward("sm80 backward sliding", ampere, {sliding_tile, raster, "text=1,edges=clipped", 100}),
      backward("sm80 backward sliding tiled", ampere, {sliding_tile, tiled, "text=1", 100, 1, 64, DataType::fp16}),
      backward("sm80 backward lists", ampere, {block_list, raster, "edges=clipped", 100}),
      backward("sm80 backward lists tiled", ampere, {block_list, tiled, "edges=sized", 100}),
      backward("sm90 backward dense", hopper, {dense, raster, "edges=clipped", 200, 1, 64, DataType::bf16, "", true},
               {Family::sm90}),
      backward("sm90 backward dense tiled", hopper, {dense, tiled, "edges=clipped", 200}, {Family::sm90, keys_shared}),
      backward("sm90 backward sliding", hopper, {sliding_tile, raster, "text=1,edges=clipped", 200},
               {Family::sm90, "", queries_shared}),
      backward("sm90 backward sliding tiled", hopper, {sliding_tile, tiled, "text=1,edges=clipped", 200},
               {Family::sm90}),
      backward("sm90 backward lists", hopper, {block_list, raster, "edges=clipped", 100}, {Family::sm90, keys_apart}),
      backward("sm90 backward lists tiled", hopper, {block_list, tiled, "edges=sized", 100},
               {Family::sm90, "", queries_apart}),
      // pool_tiles, select_tiles, and both families' blend
      video_sparse("sm80 video sparse gate", ampere, {"layout=raster", " gate", " fine"}),
      video_sparse("sm80 video sparse sizes", ampere, {"layout=tiled", " query_sizes", " key_sizes"}),
      video_sparse("sm80 video sparse coarse", ampere, {"layout=raster", "blend=coarse", "edges=clipped"}),
      video_sparse("sm90 video sparse gate", hopper, {"layout=raster", " gate", " fine"}, 50),
      video_sparse("sm90 video sparse sizes", hopper, {"layout=tiled", " gate", " query_sizes", " key_sizes"}, 50),
      video_sparse("sm90 video sparse coarse", hopper, {"layout=raster", "blend=coarse", "edges=clipped"}, 50),
      // select_tiles, list_mask, transpose_lists
      selection("select 1", {1, 1, 1, 1, 1}),
      selection("select 63", {2, 1, 17, 63, 63}, DataType::fp16),
      selection("select 129", {1, 1, 20, 129, 64}, DataType::bf16, 128),
      selection("select 330", {2, 2, 33, 330, 33}),
      selection("select in the workspace", {1, 1, 18, 1700, 7}),
      lists("lists 1", {1, 1, 1, 1}),
      lists("lists 70 x 33", {2, 3, 70, 33}),
      lists("lists 300 x 200", {1, 2, 300, 200}),
      lists("lists 64 x 130", {1, 1, 64, 130}),
  };
}

} // namespace tilewright::mutation
