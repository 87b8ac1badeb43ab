#include "cases.hpp"

#include <algorithm>
#include <numeric>
#include <random>

#include <fmt/format.h>

#include "makers.hpp"
#include "reference/tensor.hpp"

namespace tilewright::mutation {
namespace {

using testing::RandomProblem;

const SlidingTile& sliding(const RandomProblem& problem) { return std::get<SlidingTile>(problem.pattern()); }

/// Some windows leave out tiles on each axis that has several, and two axes have; the text has rows.
bool slides(const RandomProblem& problem) {
  const SlidingTile& pattern = sliding(problem);
  const Extent3 tiles = tiles_of(pattern.canvas, pattern.tile);
  const Window& window = pattern.windows[0];
  return tiles.t >= 2 && tiles.h >= 3 && tiles.w >= 2 && window.h == 2 && window.t == 1 && window.w <= 3 &&
         pattern.text_length.value_or(0) > 1;
}

/// One layer of the last tiles along t is missing, nothing else; there is no text.
bool lacks_a_layer(const RandomProblem& problem) {
  const SlidingTile& pattern = sliding(problem);
  return !pattern.text_length && pattern.canvas.t % pattern.tile.t == pattern.tile.t - 1 &&
         pattern.canvas.h % pattern.tile.h == 0 && pattern.canvas.w % pattern.tile.w == 0;
}

bool one_text_token(const RandomProblem& problem) { return sliding(problem).text_length == 1; }

/// Maxima grow by more than fp16 can follow.
bool large_queries(const RandomProblem& problem) {
  const auto values = reference::read_tensor(problem.call().q, problem.call().layout);
  return std::any_of(values.begin(), values.end(), [](double value) { return value > 24; });
}

bool ragged_queries(const RandomProblem& problem) {
  return problem.call().q.extents[problem.call().layout == Layout::raster ? 1 : 2] % 64 != 0;
}

/// The text may have rows, and has none.
bool no_text_token(const RandomProblem& problem) { return sliding(problem).text_length == 0; }

const BlockList& lists_of(const RandomProblem& problem) { return std::get<BlockList>(problem.pattern()); }

bool only_query_sizes(const RandomProblem& problem) { return !lists_of(problem).key_sizes; }

/// Both sides' sizes are given, and lists have so many entries.
std::function<bool(const RandomProblem&)> sized_and_long(std::int64_t least) {
  return [least](const RandomProblem& problem) {
    const BlockList& lists = lists_of(problem);
    return lists.query_sizes && lists.key_sizes && lists.indices.extents[3] >= least;
  };
}

/// The keys' sizes are given alone, and rows see few keys: whole rows of scores may be far below 0.
bool sized_and_short(const RandomProblem& problem) {
  const BlockList& lists = lists_of(problem);
  return !lists.query_sizes && lists.key_sizes && lists.indices.extents[3] <= 3 && lists.counts.extents[2] >= 6;
}

/// The first query tile of the first head lists nothing, others much.
bool first_is_idle(const RandomProblem& problem) {
  const BlockList& lists = lists_of(problem);
  return *static_cast<const std::int32_t*>(lists.counts.data) == 0 && lists.indices.extents[3] >= 6;
}

/// Two consumers cannot share the tiles of a head.
bool odd_and_long(const RandomProblem& problem) {
  const BlockList& lists = lists_of(problem);
  const Extent3 tiles = tiles_of(lists.canvas, lists.tile);
  return tiles.volume() % 2 == 1 && lists.indices.extents[3] >= 6;
}

/// Lists of so many entries.
std::function<bool(const RandomProblem&)> long_lists(std::int64_t least) {
  return [least](const RandomProblem& problem) {
    return std::get<BlockList>(problem.pattern()).indices.extents[3] >= least;
  };
}

/// Full key blocks, and behind the first window of 1024 none but number 1029.
std::vector<int> empty_behind(int key_blocks) {
  std::vector<int> sizes(static_cast<std::size_t>(key_blocks), 64);
  for (int block = 1024; block < key_blocks; ++block)
    sizes[static_cast<std::size_t>(block)] = block == 1029 ? 3 : 0;
  return sizes;
}

/// Nine key blocks of ten are empty.
std::vector<int> mostly_empty(int key_blocks) {
  std::vector<int> sizes(static_cast<std::size_t>(key_blocks), 0);
  for (std::size_t block = 0; block < sizes.size(); block += 10)
    sizes[block] = 64;
  return sizes;
}

/// 0, 1, ..., count - 1.
std::vector<int> numbers(int count) {
  std::vector<int> all(static_cast<std::size_t>(count));
  std::iota(all.begin(), all.end(), 0);
  return all;
}

/// Ascending lists of every length for 7 query blocks: the consumers' last item is not whole.
std::vector<std::vector<int>> random_lists(int key_blocks) {
  std::mt19937 generator(3);
  std::vector<std::vector<int>> lists(7);
  for (std::size_t i = 0; i < lists.size(); ++i)
    for (int key = 0; key < key_blocks; ++key)
      if (generator() % 6 < i)
        lists[i].push_back(key);
  return lists;
}

const std::string sm80 = "family=sm80,block_q=64,block_k=32,stages=3,warps=4,blocks_per_processor=1,softmax=online";
const std::string sm80_lazy = "family=sm80,block_q=64,block_k=32,stages=2,warps=2,blocks_per_processor=1,softmax=lazy";
const std::string two = "family=sm90,block_q=128,block_k=64,blocks_per_processor=1,consumers=2,consumer_registers=232,"
                        "producer_registers=40,";
const std::string three = "family=sm90,block_q=192,block_k=64,blocks_per_processor=1,consumers=3,"
                          "consumer_registers=160,producer_registers=32,";
const std::string alone = "family=sm90,block_q=64,block_k=64,blocks_per_processor=2,consumers=1,"
                          "consumer_registers=208,producer_registers=40,cluster=1,";
const std::string one = alone + "stages=2,";
const std::string one_stage = alone + "stages=1,";
const std::string merged = "family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,consumers=2,"
                           "consumer_registers=232,producer_registers=40,stages=3,";
const std::string merged_three = "family=sm90,block_q=64,block_k=64,cluster=1,blocks_per_processor=1,consumers=3,"
                                 "consumer_registers=152,producer_registers=56,stages=3,softmax=fixed,";
const std::string backward_sm90 = "family=sm90,blocks_per_processor=1,cluster=1,overlap=0,softmax=online,";
const std::string keys_shared = backward_sm90 + "block_q=64,block_k=128,stages=2,consumers=2,consumer_registers=232,"
                                                "producer_registers=40";
const std::string keys_apart = backward_sm90 + "block_q=64,block_k=64,stages=1,consumers=2,consumer_registers=224,"
                                               "producer_registers=56";
const std::string queries_shared = backward_sm90 + "block_q=192,block_k=64,stages=3,consumers=3,"
                                                   "consumer_registers=160,producer_registers=32";
const std::string queries_apart = backward_sm90 + "block_q=64,block_k=64,stages=3,consumers=2,consumer_registers=232,"
                                                  "producer_registers=40";

} // namespace

std::vector<CaseMaker> all_cases() {
  using enum PatternKind;
  using enum Layout;
  constexpr Tile cube{4, 4, 4}, brick{4, 8, 8};
  const Wanted big_slide{
      .pattern = sliding_tile, .text = "text=1", .max_tokens = 800, .max_flops = 3e8, .tile = cube, .accept = slides};
  const Wanted many_texts{.pattern = sliding_tile,
                          .text = "text=1",
                          .least_keys = 260,
                          .least_heads = 5,
                          .max_tokens = 130,
                          .max_flops = 2e8,
                          .tile = cube};
  const Wanted tiny_lists{.pattern = block_list,
                          .layout = tiled,
                          .text = "edges=sized",
                          .query_scale = 64,
                          .max_tokens = 1600,
                          .max_flops = 3e8,
                          .tile = cube,
                          .tiny_sizes = true,
                          .accept = sized_and_long(6)};
  const Wanted long_list{
      .pattern = block_list, .max_tokens = 1600, .max_flops = 3e8, .tile = cube, .accept = long_lists(8)};
  const auto with = [](Wanted wanted, auto change) {
    change(wanted);
    return wanted;
  };
  const auto in_tiles = [](Wanted& wanted) { wanted.layout = tiled; };
  const Wanted dense_ragged{.text = "edges=full", .accept = ragged_queries};
  const Wanted clipped{.text = "edges=clipped", .least_keys = 200, .grouped = true};
  const Wanted clipped_slide{.pattern = sliding_tile, .text = "text=1,edges=clipped", .least_keys = 200};
  const Wanted sized_lists{.pattern = block_list, .layout = tiled, .text = "edges=sized"};
  const Wanted clipped_lists{.pattern = block_list, .text = "edges=clipped", .least_keys = 100};
  const Wanted clipped_tiles{.pattern = sliding_tile,
                             .layout = tiled,
                             .text = "text=1,edges=clipped",
                             .least_keys = 700,
                             .max_tokens = 1000,
                             .max_flops = 2e8};
  std::vector<CaseMaker> cases{
      // attention_forward_sm80
      forward("sm80 dense", clipped, sm80),
      forward("sm80 dense ragged queries", with(dense_ragged, [](Wanted& wanted) { wanted.lse = false; }), sm80),
      forward("sm80 sliding", clipped_slide, sm80_lazy),
      forward("sm80 sliding, many tiles", big_slide, sm80),
      forward("sm80 sliding tiled", with(clipped_slide, in_tiles), sm80),
      forward("sm80 sliding, a layer short",
              {.pattern = sliding_tile, .text = "edges=clipped", .tile = cube, .accept = lacks_a_layer}, sm80),
      forward("sm80 one text token",
              {.pattern = sliding_tile, .text = "text=1", .max_tokens = 200, .accept = one_text_token}, sm80_lazy),
      forward("sm80 no text token",
              {.pattern = sliding_tile, .text = "text=1", .max_tokens = 200, .accept = no_text_token}, sm80),
      forward("sm80 odd tiles", {.pattern = sliding_tile, .max_tokens = 200, .tile = Tile{1, 8, 24}}, sm80),
      forward("sm80 lists tiled", sized_lists, sm80_lazy),
      listed("sm80 lists, few tiles with keys", {{0, 39}, numbers(40), {}}, 40, sm80, {.key_sizes = mostly_empty(40)}),
      forward("sm80 lists tiny sizes", tiny_lists, sm80_lazy),
      forward("sm80 lists", with(clipped_lists, [](Wanted& wanted) { wanted.dtype = DataType::fp16; }), sm80),
      // attention_forward_sm90
      forward("sm90 dense", {.text = "edges=full", .least_keys = 500, .query_scale = 64, .max_tokens = 640},
              two + "stages=3,cluster=1,overlap=1,softmax=fixed"),
      forward("sm90 dense tiled", with(clipped, in_tiles), two + "stages=2,cluster=2,overlap=1,softmax=online"),
      forward("sm90 dense ragged queries", dense_ragged, two + "stages=2,cluster=1,overlap=0,softmax=fixed"),
      forward("sm90 sliding lazy",
              with(clipped_slide,
                   [](Wanted& wanted) {
                     wanted.dtype = DataType::fp16;
                     wanted.query_scale = 16;
                     wanted.accept = large_queries;
                   }),
              one + "overlap=0,softmax=lazy"),
      forward("sm90 sliding, many tiles", big_slide, one + "overlap=1,softmax=fixed"),
      forward("sm90 sliding, many text rows", many_texts, one + "overlap=1,softmax=online"),
      forward("sm90 sliding, half of the query in registers",
              {.pattern = sliding_tile,
               .least_keys = 384,
               .head_dim = 128,
               .max_tokens = 1200,
               .max_flops = 1e8,
               .tile = Tile{3, 8, 8}},
              three + "stages=2,cluster=1,overlap=1,softmax=fixed"),
      forward("sm90 sliding tiled", clipped_tiles, one + "overlap=1,softmax=fixed"),
      forward("sm90 sliding per head", {.pattern = sliding_tile, .text = "window=per_head"},
              one + "overlap=0,softmax=online"),
      // Zeroed padding, handed back to the other thread block by an arrival without a cluster-wide release: a race
      // by the letter (docs/emulator.md).
      forward("sm90 lists tiny sizes, clusters",
              with(tiny_lists,
                   [&](Wanted& wanted) {
                     wanted.tile = brick;
                     wanted.accept = sized_and_long(3);
                   }),
              two + "stages=2,cluster=2,overlap=1,softmax=online", false),
      forward("sm90 merged tiled", sized_lists, merged + "overlap=1,softmax=lazy"),
      forward("sm90 merged query sizes", with(sized_lists, [](Wanted& wanted) { wanted.accept = only_query_sizes; }),
              merged + "overlap=1,softmax=lazy"),
      forward("sm90 merged tiny sizes", tiny_lists, merged + "overlap=1,softmax=lazy"),
      forward("sm90 merged, odd tiles",
              with(long_list,
                   [](Wanted& wanted) {
                     wanted.accept = odd_and_long;
                     wanted.least_heads = 2;
                   }),
              merged + "overlap=1,softmax=online"),
      forward("sm90 merged bricks",
              {.pattern = block_list,
               .least_heads = 2,
               .max_tokens = 1100,
               .max_flops = 3e8,
               .tile = brick,
               .accept = long_lists(3)},
              merged + "overlap=0,softmax=fixed"),
      forward("sm90 merged lists", with(long_list, [](Wanted& wanted) { wanted.text = "edges=clipped"; }),
              merged + "overlap=0,softmax=fixed"),
      forward("sm90 merged sliding", big_slide, merged + "overlap=1,softmax=fixed"),
      forward("sm90 merged, no text token", {.pattern = sliding_tile, .text = "text=1", .accept = no_text_token},
              merged + "overlap=0,softmax=fixed"),
      forward("sm90 one stage", clipped_slide, one_stage + "overlap=0,softmax=online"),
      forward("sm90 sliding, a layer short",
              {.pattern = sliding_tile, .text = "edges=clipped", .tile = cube, .accept = lacks_a_layer},
              one + "overlap=1,softmax=online"),
      listed("sm90 coarse alone", {{0, 1}, {}, {1}}, 2, one + "overlap=1,softmax=online", {.coarse = true}),
      listed("sm90 merged, empty tiles behind the window", {{0, 1030}, {1, 2, 1025, 1031}, {2, 1029}}, 1032,
             merged_three + "overlap=0", {.key_sizes = empty_behind(1032)}),
      listed("sm90 merged, due together", {{0, 2}, {0, 3}, {1, 2, 3}}, 4, merged_three + "overlap=1"),
      listed("sm90 merged, bubbles", {{0, 7}, {0, 6}, {1, 2, 3, 4}}, 8, merged_three + "overlap=1"),
      listed("sm90 merged, nobody between", {{0, 7}, {}, {0, 7}}, 8, merged_three + "overlap=1"),
      listed("sm90 merged, windows", {{0, 1030}, {1025, 1026, 1029}, {2, 1023}, {1024}}, 1040,
             merged_three + "overlap=1"),
      listed("sm90 merged, random", random_lists(20), 20, merged_three + "overlap=1"),
      listed("sm90 merged, many steps", random_lists(60), 60, merged_three + "overlap=1"),
      listed("sm90 merged, random, apart", random_lists(20), 20, merged_three + "overlap=0"),
      // attention_backward_*
      backward("sm80 backward dense", ampere, with(clipped, [](Wanted& wanted) { wanted.least_keys = 100; })),
      backward("sm80 backward dense ragged queries", ampere, dense_ragged),
      backward("sm80 backward sliding", ampere, clipped_slide),
      backward("sm80 backward sliding, many tiles", ampere, big_slide),
      backward(
          "sm80 backward sliding tiled", ampere,
          {.pattern = sliding_tile, .layout = tiled, .text = "text=1", .least_keys = 100, .dtype = DataType::fp16}),
      backward("sm80 backward odd tiles", ampere, {.pattern = sliding_tile, .max_tokens = 200, .tile = Tile{1, 8, 24}}),
      backward("sm80 backward one text token", ampere,
               {.pattern = sliding_tile, .text = "text=1", .max_tokens = 200, .accept = one_text_token}),
      backward("sm80 backward lists", ampere, clipped_lists),
      backward("sm80 backward lists, grouped", ampere, {.pattern = block_list, .grouped = true, .max_flops = 5e7}),
      backward("sm80 backward lists tiled", ampere, sized_lists),
      backward("sm80 backward tiny sizes", ampere, tiny_lists, {.strict = false}),
      backward("sm90 backward dense", hopper, clipped, {Family::sm90}),
      backward("sm90 backward dense ragged queries", hopper, dense_ragged, {Family::sm90}),
      backward("sm90 backward dense tiled", hopper, with(clipped, in_tiles), {Family::sm90, keys_shared}),
      backward("sm90 backward sliding", hopper, clipped_slide, {Family::sm90, "", queries_shared}),
      backward("sm90 backward sliding, many tiles", hopper, big_slide, {Family::sm90, keys_apart}),
      backward("sm90 backward sliding, many text rows", hopper, many_texts, {Family::sm90, keys_apart}),
      backward("sm90 backward sliding, text queries", hopper, many_texts, {Family::sm90, "", queries_apart}),
      backward("sm90 backward sliding tiled", hopper, clipped_tiles, {Family::sm90}),
      backward("sm90 backward lists", hopper, clipped_lists, {Family::sm90, keys_apart}),
      backward("sm90 backward long lists", hopper, long_list, {Family::sm90, keys_apart}),
      backward("sm90 backward long lists of keys", hopper,
               with(long_list, [](Wanted& wanted) { wanted.accept = first_is_idle; }),
               {Family::sm90, "", queries_apart}),
      backward("sm90 backward lists tiled", hopper, sized_lists, {Family::sm90, "", queries_apart}),
      backward("sm90 backward tiny sizes", hopper, tiny_lists,
               {.family = Family::sm90, .key = keys_apart, .strict = false}),
      backward("sm90 backward tiny sizes of keys", hopper,
               with(tiny_lists, [](Wanted& wanted) { wanted.accept = sized_and_short; }),
               {.family = Family::sm90, .query = queries_apart, .scale = 16, .strict = false}),
      // select_tiles, list_mask, transpose_lists
      selection("select 1", {1, 1, 1, 1, 1}),
      selection("select of 24", {1, 1, 17, 24, 1}, {}, 24),
      selection("select 63", {2, 1, 17, 63, 63}, {.dtype = DataType::fp16}),
      selection("select 129", {1, 1, 20, 129, 64}, {.head_dim = 128}),
      selection("select 330", {2, 2, 33, 330, 33}, {.coarse = false}),
      selection("select from empty tiles", {2, 1, 5, 8, 3}, {.key_sizes = {0, 0, 0, 0, 0, 0, 0, 0}}),
      selection("select from some empty tiles", {2, 1, 5, 8, 3}, {.key_sizes = {1, 0, 64, 0, 0, 2, 0, 1}}, 3),
      selection("select in the workspace", {1, 1, 18, 1700, 7}),
      lists("lists 1", {1, 1, 1, 1}),
      lists("lists 70 x 33", {2, 3, 70, 33}),
      lists("lists 300 x 200", {1, 2, 300, 200}),
      lists("lists 64 x 130", {1, 1, 64, 130}),
  };
  // pool_tiles, select_tiles, and both families' blend
  for (const Architecture& architecture : {ampere, hopper})
    for (const std::uint64_t first_seed : {0U, 100U, 200U}) {
      const std::string suffix = fmt::format(" from seed {}, {}", first_seed, to_string(architecture));
      const auto add = [&](const char* name, std::vector<std::string> described) {
        cases.push_back(video_sparse(name + suffix, architecture, std::move(described), first_seed));
      };
      add("video sparse gate", {"layout=raster", " gate", " fine"});
      add("video sparse sizes", {"layout=tiled", " gate", " query_sizes", " key_sizes"});
      add("video sparse fine and sizes", {"layout=tiled", " fine", " query_sizes"});
      add("video sparse key sizes", {"layout=tiled", " key_sizes", "! query_sizes"});
      add("video sparse coarse", {"layout=raster", "blend=coarse", "edges=clipped"});
    }
  for (const Architecture& architecture : {ampere, hopper})
    for (const Layout layout : {raster, tiled})
      for (const std::uint64_t seed : {1U, 2U}) {
        testing::VideoSparseLimits limits = small_video_sparse();
        limits.layout = layout;
        cases.push_back(video_sparse_gradient(
            fmt::format("video sparse gradient, {}, {}, seed {}", to_string(architecture), to_string(layout), seed),
            architecture, limits, seed));
      }
  testing::VideoSparseLimits many_tiles = small_video_sparse(), opposed = many_tiles, keyless = many_tiles;
  many_tiles.canvas = Canvas{1, 11, 180};
  many_tiles.layout = raster;
  many_tiles.max_flops = 1;
  cases.push_back(video_sparse_gradient("video sparse gradient, many tiles", ampere, many_tiles, 500));
  opposed.layout = keyless.layout = tiled;
  opposed.opposed = keyless.keyless = true;
  opposed.activation = 1.0;
  cases.push_back(video_sparse_gradient("video sparse gradient, opposed", ampere, opposed, 403));
  cases.push_back(video_sparse_gradient("video sparse gradient, no key", ampere, keyless, 600));
  return cases;
}

} // namespace tilewright::mutation
