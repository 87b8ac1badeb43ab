// Video sparse attention and its parts in the emulator, against the float64 reference.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <vector>

#include "support_environment.hpp"
#include "support_replay.hpp"
#include "support_seeds.hpp"
#include "support_tile_kernels.hpp"
#include "support_video_sparse.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// TILEWRIGHT_VIDEO_SPARSE_PROBLEMS=N: how many random problems each family computes.
std::uint64_t problem_count(std::uint64_t without_a_wish) {
  return number_in_environment("TILEWRIGHT_VIDEO_SPARSE_PROBLEMS", without_a_wish);
}

/// Problems of every type, head size and layout in turn; the first of each under eight seeds.
void check_problems(const Architecture& architecture, std::uint64_t count, std::uint64_t first) {
  constexpr std::uint64_t forms = 8;
  std::uint64_t lists = 0, different = 0;
  for (std::uint64_t i = 0; i < count; ++i) {
    VideoSparseLimits limits;
    limits.dtype = i % 2 == 0 ? DataType::bf16 : DataType::fp16;
    limits.head_dim = i / 2 % 2 == 0 ? 64 : 128;
    limits.layout = i / 4 % 2 == 0 ? Layout::raster : Layout::tiled;
    limits.max_flops = i < forms ? 1e7 : 4e7;
    const std::uint64_t seed = first + i;
    const auto make = [&](const ChoiceList* list) { return RandomVideoSparse(seed, limits, list); };
    CHECK(check_shrinking(seed, make, [&](RandomVideoSparse& problem) {
            const auto run = [&](std::shared_ptr<Executor> executor) {
              Runtime runtime(std::move(executor));
              return problem.check(runtime,
                                   [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); });
            };
            const std::string wrong = i < forms ? complaint_under_seeds(architecture, run)
                                                : run(make_emulator({.seed = seed, .architecture = architecture}));
            lists += problem.lists();
            different += problem.different_lists();
            return wrong;
          }) == "");
  }
  MESSAGE(fmt::format("{}: {} problems, {} lists, {} of them with another order of close scores",
                      to_string(architecture), count, lists, different));
}

} // namespace

TEST_CASE("video sparse attention, generic family: every type, head size and layout under eight seeds") {
  check_problems({8, 0, 0}, problem_count(16), 0);
}

TEST_CASE("video sparse attention, Hopper family: every type, head size and layout under eight seeds") {
  check_problems({9, 0, 'a'}, problem_count(16), 100);
}

TEST_CASE("selection among 1 to 8192 tiles: strips in shared memory and in the workspace under eight seeds") {
  for (const SelectSizes& sizes : {SelectSizes{1, 1, 1, 1, 1},
                                   {2, 1, 17, 63, 63},
                                   {3, 3, 16, 64, 1},
                                   {1, 1, 20, 129, 64},
                                   {2, 2, 33, 768, 76},
                                   {1, 1, 16, 1920, 192},
                                   {1, 1, 18, 2800, 7},
                                   {1, 1, 5, 8192, 820}})
    for (const DataType dtype : {DataType::bf16, DataType::fp16}) {
      const auto seed = static_cast<std::uint64_t>(sizes.key_tiles);
      CHECK(complaint_under_seeds({8, 0, 0}, [&](std::shared_ptr<Executor> executor) {
              Runtime runtime(std::move(executor));
              return select_complaint(runtime, sizes, {dtype, dtype == DataType::bf16 ? 64 : 128}, seed);
            }) == "");
    }
}

TEST_CASE("lists out of a mask and their inverse under eight seeds") {
  for (const MaskSizes& sizes : {MaskSizes{1, 1, 1, 1}, {2, 3, 70, 33}, {1, 2, 300, 200}, {1, 1, 64, 130}})
    CHECK(complaint_under_seeds({8, 0, 0}, [&](std::shared_ptr<Executor> executor) {
            Runtime runtime(std::move(executor));
            return list_complaint(runtime, sizes, 7);
          }) == "");
}
