// How the judge's cases are made.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cases.hpp"
#include "support_listed_blocks.hpp"
#include "support_random_problem.hpp"
#include "support_tile_kernels.hpp"
#include "support_video_sparse.hpp"
#include <tilewright/runtime.hpp>

namespace tilewright::mutation {

constexpr Architecture ampere{8, 0, 0}, hopper{9, 0, 'a'};

/// What a random attention problem must be like.
struct Wanted {
  PatternKind pattern = PatternKind::dense;
  Layout layout = Layout::raster;
  std::string text = {};       // a part of the problem's line
  std::int64_t least_keys = 1; // rows of k
  double query_scale = 1;
  DataType dtype = DataType::bf16;
  std::int32_t head_dim = 64;
  bool grouped = false; // several query heads share keys
  bool lse = true;
  std::int64_t least_heads = 1; // batch * query heads
  std::int64_t max_tokens = 400, max_text = 160;
  double max_flops = 1e7;
  std::optional<Tile> tile = {};
  bool tiny_sizes = false;
  std::function<bool(const testing::RandomProblem&)> accept = {};
};

/// Tiles of the queries' canvas along each axis.
Extent3 tiles_of(const Canvas& canvas, const Tile& tile);

/// A forward call, by a kernel of this schedule. races: looked for.
CaseMaker forward(std::string name, const Wanted& wanted, const std::string& schedule, bool races = true);

struct BackwardForm {
  Family family = Family::automatic;
  std::string key = {}, query = {}; // schedules
  double scale = 1;                 // of q, k, v and dout
  bool strict = true;               // false: where gradients are 0 but for rounding
};

/// A backward call, all of its kernels.
CaseMaker backward(std::string name, const Architecture& architecture, const Wanted& wanted,
                   const BackwardForm& form = {});

/// Video sparse attention. described: parts of the problem's description; those behind a "!" must not be in it.
CaseMaker video_sparse(std::string name, const Architecture& architecture, std::vector<std::string> described,
                       std::uint64_t first_seed = 0);
/// The same and its gradient.
CaseMaker video_sparse_gradient(std::string name, const Architecture& architecture,
                                const testing::VideoSparseLimits& limits, std::uint64_t seed);
/// What takes little time.
testing::VideoSparseLimits small_video_sparse();

/// problems: so many one after the other, each with a topk of one more.
CaseMaker selection(std::string name, const testing::SelectSizes& sizes, const testing::SelectForm& form = {},
                    int problems = 1);

/// Written lists, for a Hopper schedule.
CaseMaker listed(std::string name, std::vector<std::vector<int>> lists, std::int64_t key_blocks,
                 const std::string& schedule, const testing::ListedForm& form = {});

/// Lists out of a mask, and their inverse.
CaseMaker lists(std::string name, const testing::MaskSizes& sizes);

} // namespace tilewright::mutation
