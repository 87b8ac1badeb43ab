#include "makers.hpp"

#include <algorithm>
#include <stdexcept>

#include <fmt/format.h>

#include "schedule/feasibility.hpp"
#include "support_random_backward.hpp"
#include "support_video_sparse_backward.hpp"
#include <tilewright/error.hpp>

namespace tilewright::mutation {
namespace {

using testing::RandomBackward;
using testing::RandomLimits;
using testing::RandomProblem;
using testing::RandomVideoSparse;

constexpr std::uint64_t most_seeds = 4000; // that are tried for a problem that fits

RandomLimits limits_of(const Wanted& wanted) {
  RandomLimits limits;
  limits.pattern = wanted.pattern;
  limits.layout = wanted.layout;
  limits.dtype = wanted.dtype;
  limits.head_dim = wanted.head_dim;
  limits.tile = wanted.tile;
  limits.tiny_sizes = wanted.tiny_sizes;
  limits.max_tokens = wanted.max_tokens;
  limits.max_text = wanted.max_text;
  limits.max_flops = wanted.max_flops;
  limits.any_strides = false;
  limits.query_scale_max = wanted.query_scale;
  return limits;
}

/// The first seed whose problem is as wanted and takes this schedule, if there is one.
std::uint64_t find_seed(const Wanted& wanted, Operator op, const std::string& schedule) {
  const RandomLimits limits = limits_of(wanted);
  for (std::uint64_t seed = 0; seed < most_seeds; ++seed) {
    const RandomProblem random(seed, limits);
    const AttentionForward& call = random.call();
    const std::size_t head_axis = wanted.layout == Layout::raster ? 2 : 1;
    Problem problem = random.problem();
    problem.op = op;
    if (to_string(problem).find(wanted.text) != std::string::npos && call.lse.has_value() == wanted.lse &&
        call.k.extents[3 - head_axis] >= wanted.least_keys &&
        call.q.extents[0] * call.q.extents[head_axis] >= wanted.least_heads &&
        (!wanted.grouped || call.q.extents[head_axis] > call.k.extents[head_axis]) &&
        (!wanted.accept || wanted.accept(random)) &&
        (schedule.empty() || schedule::reasons_against(problem, parse_schedule(schedule), hopper).empty()))
      return seed;
  }
  throw std::runtime_error(fmt::format("no random problem \"{}\" that is wanted takes \"{}\"", wanted.text, schedule));
}

RuntimeOptions options_with(Family family, const std::string& schedule = {}) {
  RuntimeOptions options;
  options.cache.folder = "/nonexistent"; // no tuned schedules
  options.family = family;
  if (!schedule.empty())
    options.schedule = parse_schedule(schedule);
  return options;
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

} // namespace

/// Tiles of the queries' canvas along each axis.
Extent3 tiles_of(const Canvas& canvas, const Tile& tile) {
  return {(canvas.t + tile.t - 1) / tile.t, (canvas.h + tile.h - 1) / tile.h, (canvas.w + tile.w - 1) / tile.w};
}

CaseMaker forward(std::string name, const Wanted& wanted, const std::string& schedule, bool races) {
  return {name, [=] {
            const std::uint64_t seed = find_seed(wanted, Operator::attention_forward, schedule);
            const auto problem = std::make_shared<RandomProblem>(seed, limits_of(wanted));
            const RuntimeOptions options = options_with(Family::automatic, schedule);
            return Case{name, hopper,
                        [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options);
                          return problem->check([&](const AttentionForward& call, const Pattern& pattern) {
                            runtime.attention_forward(call, pattern);
                          });
                        },
                        races};
          }};
}

CaseMaker backward(std::string name, const Architecture& architecture, const Wanted& wanted, const BackwardForm& form) {
  return {name, [=] {
            const std::uint64_t seed = form.key.empty()
                                           ? find_seed(wanted, Operator::attention_backward_query, form.query)
                                           : find_seed(wanted, Operator::attention_backward_key, form.key);
            const auto problem = std::make_shared<RandomBackward>(seed, limits_of(wanted), form.scale);
            const auto expected = std::make_shared<const reference::Gradients>(
                reference::attention_backward(problem->call(), problem->pattern()));
            RuntimeOptions options = options_with(form.family);
            if (!form.key.empty())
              options.backward_key_schedule = parse_schedule(form.key);
            if (!form.query.empty())
              options.backward_query_schedule = parse_schedule(form.query);
            return Case{name, architecture, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options);
                          const std::string wrong =
                              problem->check([&](const AttentionBackward& call, const Pattern& pattern) {
                                runtime.attention_backward(call, pattern);
                              });
                          return wrong.empty() && form.strict ? strict_complaint(problem->call(), *expected) : wrong;
                        }};
          }};
}

CaseMaker video_sparse(std::string name, const Architecture& architecture, std::vector<std::string> described,
                       std::uint64_t first_seed) {
  return {name, [=] {
            const testing::VideoSparseLimits limits = small_video_sparse();
            for (std::uint64_t seed = first_seed; seed < first_seed + most_seeds; ++seed) {
              const auto problem = std::make_shared<RandomVideoSparse>(seed, limits);
              const std::string text = problem->description();
              const auto is_missing = [&](const std::string& part) {
                return part[0] == '!' ? text.find(part.substr(1)) != std::string::npos
                                      : text.find(part) == std::string::npos;
              };
              if (std::any_of(described.begin(), described.end(), is_missing))
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

testing::VideoSparseLimits small_video_sparse() {
  testing::VideoSparseLimits limits;
  limits.max_tiles = 12;
  limits.max_tokens = 800;
  limits.max_flops = 6e6;
  limits.head_dim = 64;
  return limits;
}

CaseMaker video_sparse_gradient(std::string name, const Architecture& architecture,
                                const testing::VideoSparseLimits& limits, std::uint64_t seed) {
  return {name, [=] {
            const auto problem = std::make_shared<testing::RandomVideoSparseBackward>(seed, limits);
            return Case{
                name, architecture, [=](const std::shared_ptr<Executor>& executor) {
                  Runtime runtime(executor, options_with(Family::automatic));
                  return problem->check(
                      runtime, [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); },
                      [&](const VideoSparseAttentionBackward& call) { runtime.video_sparse_attention_backward(call); });
                }};
          }};
}

/// sm_86 has the least shared memory: strips of 16 x 1600 scores do not fit it.
CaseMaker selection(std::string name, const testing::SelectSizes& sizes, const testing::SelectForm& form,
                    int problems) {
  return {name, [=] {
            return Case{name, {8, 6, 0}, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options_with(Family::automatic));
                          std::string wrong;
                          testing::SelectSizes of_problem = sizes;
                          for (int i = 0; i < problems && wrong.empty(); ++i, ++of_problem.topk)
                            wrong = testing::select_complaint(runtime, of_problem, form, static_cast<std::uint64_t>(i));
                          return wrong;
                        }};
          }};
}

CaseMaker listed(std::string name, std::vector<std::vector<int>> lists, std::int64_t key_blocks,
                 const std::string& schedule, const testing::ListedForm& form) {
  return {name, [=] {
            const auto problem = std::make_shared<testing::ListedBlocks>(lists, key_blocks, form);
            const RuntimeOptions options = options_with(Family::automatic, schedule);
            return Case{name, hopper, [=](const std::shared_ptr<Executor>& executor) {
                          Runtime runtime(executor, options);
                          return problem->check(runtime);
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

} // namespace tilewright::mutation
