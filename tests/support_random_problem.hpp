// Random problems for property tests. One seed makes a call with its pattern and host tensors; check() runs any
// implementation on them and says what is wrong with what it wrote:
//
//     for (std::uint64_t seed = 0; seed < 50; ++seed)
//       CHECK(check_random_problem(seed, {}, [&](const AttentionForward& call, const Pattern& pattern) {
//               runtime.attention_forward(call, pattern);
//             }) == "");
//
// The answer begins with the seed and the problem; RandomProblem(seed, limits) makes the same one again.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <list>
#include <optional>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "reference/compare.hpp"
#include "reference/relation.hpp"
#include "reference/tensor.hpp"
#include "support_choices.hpp"
#include "support_tensor.hpp"
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::testing {

/// What may be drawn. The same seed with the same limits gives the same problem.
struct RandomLimits {
  std::int64_t max_tokens = 1024; // of a canvas, or one tile where that is larger
  std::int64_t max_text = 512;
  std::int64_t max_batch = 3, max_kv_heads = 2, max_heads_per_kv_head = 3;
  double max_flops = 5e8; // of dense attention between all rows; batch, heads and text shrink to meet it
  std::optional<PatternKind> pattern{};
  std::optional<DataType> dtype{};
  std::optional<std::int32_t> head_dim{};
  std::optional<Layout> layout{};
  std::optional<Tile> tile{}; // of sliding tiles and lists
  bool tiny_sizes = false;    // valid tokens of a tile: 0 to 2, where sizes are drawn
  bool any_strides = true;    // false: gaps between tokens only, which every kernel family can read
  bool poison_padding = true; // NaN in rows that no one attends to; false: random numbers
  double query_scale_max = 4; // queries are drawn with a deviation of 1 or of this
};

/// Tolerances: a probability and an output are rounded to 8 (bf16) or 11 (fp16) significant bits, each with a relative
/// error of about half a unit, so a right result has about 2e-3 or 3e-4. One row may have four times the whole's.
struct Tolerances {
  double relative_l2, row_relative_l2, lse;

  static constexpr Tolerances of(DataType dtype) noexcept {
    const double whole = dtype == DataType::bf16 ? 6e-3 : 1e-3;
    return {whole, 4 * whole, 1e-4};
  }
};

class RandomProblem {
public:
  /// list: what is chosen instead of what the seed would choose (support_replay.hpp).
  explicit RandomProblem(std::uint64_t seed, const RandomLimits& limits = {}, const ChoiceList* list = nullptr)
      : seed_(seed), limits_(limits), choices_(seed, list) {
    dtype_ = limits.dtype.value_or(chance(0.5) ? DataType::bf16 : DataType::fp16);
    head_dim_ = limits.head_dim.value_or(chance(0.5) ? 64 : 128);
    layout_ = limits.layout.value_or(chance(0.6) ? Layout::raster : Layout::tiled);
    batch_ = integer(1, limits.max_batch);
    kv_heads_ = integer(1, limits.max_kv_heads);
    heads_per_kv_head_ = integer(1, limits.max_heads_per_kv_head);
    switch (limits.pattern.value_or(pick<PatternKind>(
        {PatternKind::dense, PatternKind::sliding_tile, PatternKind::sliding_tile, PatternKind::block_list}))) {
    case PatternKind::dense:
      draw_dense();
      break;
    case PatternKind::sliding_tile:
      draw_sliding_tile();
      break;
    case PatternKind::block_list:
      draw_block_list();
      break;
    }
    draw_tensors();
  }

  [[nodiscard]] const AttentionForward& call() const noexcept { return call_; }
  [[nodiscard]] const Pattern& pattern() const noexcept { return pattern_; }
  [[nodiscard]] ChoiceList choices() const { return choices_.made(); }
  [[nodiscard]] Problem problem() const { return Runtime::problem_of(call_, pattern_); }

  /// The closed problem's line and this call's run-time values.
  [[nodiscard]] std::string description() const {
    std::string text = fmt::format("{} batch={} heads={}/{} queries={} keys={}", to_string(problem()), batch_, heads(),
                                   kv_heads_, queries_, keys_);
    if (const auto* sliding = std::get_if<SlidingTile>(&pattern_)) {
      text += fmt::format(" canvas={} windows=", to_string(sliding->canvas));
      for (const Window& window : sliding->windows)
        text += to_string(window) + " ";
      text += sliding->text_length ? fmt::format("text_length={}", *sliding->text_length) : "without text";
    } else if (const auto* lists = std::get_if<BlockList>(&pattern_)) {
      text += fmt::format(" canvas={} key_canvas={} sizes={}{}", to_string(lists->canvas),
                          to_string(lists->key_canvas.value_or(lists->canvas)), lists->query_sizes ? "q" : "",
                          lists->key_sizes ? "k" : "");
    }
    return text;
  }

  /// Every tensor, and the call and the pattern with each pointer replaced by move(pointer): for tests that copy the
  /// tensors' allocations to a device and back.
  [[nodiscard]] std::list<HostTensor>& tensors() noexcept { return tensors_; }
  template <typename Move> [[nodiscard]] std::pair<AttentionForward, Pattern> relocated(Move move) const {
    auto [call, pattern] = std::pair{call_, pattern_};
    const auto relocate = [&](TensorView& view) { view.data = move(view.data); };
    for (TensorView* view : {&call.q, &call.k, &call.v, &call.out})
      relocate(*view);
    if (call.lse)
      relocate(*call.lse);
    if (auto* lists = std::get_if<BlockList>(&pattern)) {
      relocate(lists->counts);
      relocate(lists->indices);
      if (lists->query_sizes)
        relocate(*lists->query_sizes);
      if (lists->key_sizes)
        relocate(*lists->key_sizes);
    }
    return {call, pattern};
  }

  /// Poisons the outputs, calls run(call, pattern), and compares. Empty where all is right.
  template <typename Run> std::string check(Run&& run) {
    out_->poison_all();
    if (lse_)
      lse_->poison_all();
    const auto before = inputs();
    run(call_, pattern_);
    std::string complaints;
    const auto complain_if = [&](bool wrong, const std::string& complaint) {
      if (wrong)
        complaints += "\n  " + complaint;
    };
    complain_if(inputs() != before, "an input was written to");
    check_written("out", *out_, complain_if);
    if (lse_)
      check_written("lse", *lse_, complain_if);
    const reference::Result expected = reference::attention_forward(call_, pattern_);
    const Tolerances tolerances = Tolerances::of(dtype_);
    const auto actual = reference::read_tensor(call_.out, layout_);
    const double error = reference::output_error(actual, expected.out).relative_l2;
    complain_if(!(error <= tolerances.relative_l2),
                fmt::format("relative L2 error {:.3g} > {:.3g}", error, tolerances.relative_l2));
    check_rows(actual, expected.out, tolerances.row_relative_l2, complain_if);
    if (lse_) {
      const double lse_error = reference::lse_error(reference::read_lse(*call_.lse), expected.lse);
      complain_if(!(lse_error <= tolerances.lse), fmt::format("LSE error {:.3g} > {:.3g}", lse_error, tolerances.lse));
    }
    return complaints.empty() ? "" : fmt::format("seed {}: {}{}", seed_, description(), complaints);
  }

private:
  static constexpr std::array<Tile, 8> tiles{
      {{6, 8, 8}, {4, 4, 4}, {2, 8, 8}, {4, 8, 8}, {1, 8, 8}, {1, 16, 16}, {1, 1, 64}, {1, 1, 128}}};
  static constexpr std::int64_t stride_multiple = 8; // 16 bytes
  using Extents = std::initializer_list<std::int64_t>;

  std::int64_t integer(std::int64_t least, std::int64_t most) { return choices_.integer(least, most); }
  bool chance(double probability) { return integer(0, 999) < static_cast<std::int64_t>(probability * 1000); }
  template <typename Value> Value pick(std::initializer_list<Value> values) {
    return values.begin()[integer(0, static_cast<std::int64_t>(values.size()) - 1)];
  }
  Tile pick_tile() {
    return limits_.tile ? *limits_.tile : tiles[static_cast<std::size_t>(integer(0, tiles.size() - 1))];
  }

  [[nodiscard]] std::int64_t heads() const noexcept { return kv_heads_ * heads_per_kv_head_; }

  /// A canvas of at least one tile and at most max_tokens, half of the time no multiple of the tile.
  Canvas draw_canvas(const Tile& tile) {
    Extent3 count{1, 1, 1};
    for (std::int64_t attempt = integer(0, 8); attempt > 0; --attempt) {
      Extent3 larger = count;
      ++*pick({&larger.t, &larger.h, &larger.w});
      if (larger.volume() * tile.volume() <= limits_.max_tokens)
        count = larger;
    }
    const bool ragged = chance(0.5);
    const auto extent = [&](std::int32_t tile_extent, std::int32_t tile_count) {
      const std::int64_t missing = ragged ? integer(0, tile_extent - 1) : 0;
      return static_cast<std::int32_t>(tile_extent * tile_count - missing);
    };
    const std::int32_t t = extent(tile.t, count.t), h = extent(tile.h, count.h), w = extent(tile.w, count.w);
    return {t, h, w};
  }

  /// Fewer batches and heads, until dense attention would stay within max_flops.
  void shrink_to_flops() {
    const auto too_much = [&] {
      return 4.0 * static_cast<double>(head_dim_ * batch_ * heads()) * static_cast<double>(queries_) *
                 static_cast<double>(keys_) >
             limits_.max_flops;
    };
    for (std::int64_t* count : {&batch_, &heads_per_kv_head_, &kv_heads_})
      while (*count > 1 && too_much())
        --*count;
  }

  void draw_dense() {
    const auto length = [&] {
      const std::int64_t tokens = integer(1, limits_.max_tokens);
      return chance(0.4) ? (tokens + 63) / 64 * 64 : tokens; // a whole number of key blocks
    };
    queries_ = length();
    keys_ = length();
    shrink_to_flops();
    pattern_ = Dense{};
  }

  void draw_sliding_tile() {
    SlidingTile pattern;
    pattern.tile = pick_tile();
    pattern.canvas = draw_canvas(pattern.tile);
    queries_ = problem::Tiling(pattern.canvas, pattern.tile).token_count(layout_);
    if (chance(0.6)) {
      const std::int64_t rows =
          std::min(pick<std::int64_t>({0, 1, 77, integer(1, 128), integer(1, 512)}), limits_.max_text);
      pattern.text_length = chance(0.5) ? rows : integer(0, rows);
      queries_ += rows;
    }
    keys_ = queries_;
    shrink_to_flops();
    const std::int64_t windows = chance(0.4) ? heads() : 1;
    for (std::int64_t i = 0; i < windows; ++i) {
      const auto extent = [&] { return static_cast<std::int32_t>(pick<std::int64_t>({1, 1, 2, 3, integer(1, 7)})); };
      const std::int32_t t = extent(), h = extent(), w = extent();
      pattern.windows.push_back({t, h, w});
    }
    pattern_ = pattern;
  }

  void draw_block_list() {
    BlockList pattern;
    pattern.tile = pick_tile();
    pattern.canvas = draw_canvas(pattern.tile);
    if (chance(0.3))
      pattern.key_tile = pick_tile();
    if (pattern.key_tile || chance(0.3))
      pattern.key_canvas = draw_canvas(pattern.key_tile.value_or(pattern.tile));
    const problem::Tiling queries(pattern.canvas, pattern.tile);
    const problem::Tiling keys(pattern.key_canvas.value_or(pattern.canvas), pattern.key_tile.value_or(pattern.tile));
    queries_ = queries.token_count(layout_);
    keys_ = keys.token_count(layout_);
    shrink_to_flops();
    draw_lists(pattern, queries.tile_count(), keys.tile_count());
    if (layout_ == Layout::tiled && chance(0.5)) {
      const bool key_sizes = chance(0.7);
      if (key_sizes)
        pattern.key_sizes = draw_sizes(keys);
      if (!key_sizes || chance(0.7))
        pattern.query_sizes = draw_sizes(queries);
    }
    pattern_ = pattern;
  }

  /// Lists of every length from none to all; entries behind a list's count stay poison.
  void draw_lists(BlockList& pattern, std::int64_t query_tiles, std::int64_t key_tiles) {
    const std::int64_t batches = chance(0.5) ? 1 : batch_, list_heads = chance(0.5) ? 1 : heads();
    const double density = pick({0.1, 0.3, 0.7, 1.0});
    std::vector<std::vector<std::int32_t>> lists;
    std::size_t longest = 1;
    for (std::int64_t i = 0; i < batches * list_heads * query_tiles; ++i) {
      auto& list = lists.emplace_back();
      if (!chance(0.15))
        for (std::int32_t tile = 0; tile < key_tiles; ++tile)
          if (chance(density))
            list.push_back(tile);
      longest = std::max(longest, list.size());
    }
    if (std::all_of(lists.begin(), lists.end(), [](const auto& list) { return list.empty(); }))
      lists.front().push_back(0); // nothing at all would be no test
    const std::int64_t capacity = static_cast<std::int64_t>(longest) + integer(0, 3);
    HostTensor& counts = tensors_.emplace_back(DataType::int32, Extents{batches, list_heads, query_tiles});
    HostTensor& indices = tensors_.emplace_back(DataType::int32, Extents{batches, list_heads, query_tiles, capacity});
    const auto list_of = [&](auto b, auto head, auto tile) -> const std::vector<std::int32_t>& {
      return lists[static_cast<std::size_t>((b * list_heads + head) * query_tiles + tile)];
    };
    counts.fill([&](auto b, auto head, auto tile, auto) { return static_cast<double>(list_of(b, head, tile).size()); });
    indices.fill([&](auto b, auto head, auto tile, auto i) -> std::optional<double> {
      const auto& list = list_of(b, head, tile);
      return i < static_cast<std::int64_t>(list.size()) ? std::optional<double>(list[static_cast<std::size_t>(i)])
                                                        : std::nullopt;
    });
    pattern.counts = counts.view();
    pattern.indices = indices.view();
  }

  TensorView draw_sizes(const problem::Tiling& tiling) {
    const bool shared = chance(0.5);
    HostTensor& sizes = shared ? tensors_.emplace_back(DataType::int32, Extents{tiling.tile_count()})
                               : tensors_.emplace_back(DataType::int32, Extents{batch_, tiling.tile_count()});
    const std::int64_t full = tiling.tile().volume();
    sizes.fill([&](auto...) {
      if (limits_.tiny_sizes)
        return static_cast<double>(integer(0, 2));
      return static_cast<double>(pick<std::int64_t>({0, full, integer(0, full), integer(1, full)}));
    });
    return sizes.view();
  }

  /// A tensor of tokens; half of the time with gaps between tokens, heads and batches.
  HostTensor& draw_tensor(std::int64_t tokens, std::int64_t tensor_heads) {
    const bool gaps = chance(0.5);
    const auto gap = [&](bool allowed) { return gaps && allowed ? stride_multiple * integer(0, 4) : 0; };
    const std::int64_t token_gap = gap(true), head_gap = gap(limits_.any_strides), batch_gap = gap(limits_.any_strides);
    if (layout_ == Layout::raster) {
      const std::int64_t head_stride = head_dim_ + head_gap, token_stride = tensor_heads * head_stride + token_gap;
      return tensors_.emplace_back(
          dtype_, Extents{batch_, tokens, tensor_heads, head_dim_},
          std::vector{tokens * token_stride + batch_gap, token_stride, head_stride, std::int64_t{1}});
    }
    const std::int64_t token_stride = head_dim_ + token_gap, head_stride = tokens * token_stride + head_gap;
    return tensors_.emplace_back(
        dtype_, Extents{batch_, tensor_heads, tokens, head_dim_},
        std::vector{tensor_heads * head_stride + batch_gap, head_stride, token_stride, std::int64_t{1}});
  }

  void draw_tensors() {
    HostTensor &q = draw_tensor(queries_, heads()), &k = draw_tensor(keys_, kv_heads_),
               &v = draw_tensor(keys_, kv_heads_);
    out_ = &draw_tensor(queries_, heads());
    call_ = {.q = q.view(), .k = k.view(), .v = v.view(), .out = out_->view(), .layout = layout_};
    if (chance(0.75)) {
      const std::int64_t head_stride = queries_ + (chance(0.5) ? integer(0, 9) : 0);
      lse_ = &tensors_.emplace_back(DataType::float32, Extents{batch_, heads(), queries_},
                                    std::vector{heads() * head_stride, head_stride, std::int64_t{1}});
      call_.lse = lse_->view();
    }
    if (chance(0.25))
      call_.scale = static_cast<float>(integer(1, 20)) / 64.0f;

    const reference::Relation relation(call_, pattern_);
    const double query_scale = chance(0.7) ? 1.0 : limits_.query_scale_max, value_mean = pick({0.0, 0.0, 2.0});
    std::normal_distribution<double> normal;
    const auto fill = [&](HostTensor& tensor, double deviation, double mean, auto group_of) {
      tensor.fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
        if (limits_.poison_padding && group_of(b, layout_ == Layout::raster ? i : j) == reference::Relation::padding)
          return std::nullopt;
        return mean + deviation * normal(choices_.generator());
      });
    };
    const auto query_group = [&](auto b, auto row) { return relation.query_group(b, row); };
    const auto key_group = [&](auto b, auto row) { return relation.key_group(b, row); };
    fill(q, query_scale, 0, query_group);
    fill(k, 1, 0, key_group);
    fill(v, 1, value_mean, key_group);
  }

  [[nodiscard]] std::vector<std::byte> inputs() const {
    std::vector<std::byte> bytes;
    for (const HostTensor& tensor : tensors_)
      if (&tensor != out_ && &tensor != lse_)
        bytes.insert(bytes.end(), tensor.allocation(), tensor.allocation() + tensor.allocation_bytes());
    return bytes;
  }

  template <typename ComplainIf>
  static void check_written(const char* name, HostTensor& tensor, const ComplainIf& complain_if) {
    const std::size_t unwritten = tensor.unwritten(), damaged = tensor.damaged_bytes();
    complain_if(unwritten > 0, fmt::format("{} elements of {} were not written", unwritten, name));
    complain_if(damaged > 0, fmt::format("{} bytes beside {}'s elements were written", damaged, name));
  }

  /// One wrong row among many hardly moves the whole's error.
  template <typename ComplainIf>
  void check_rows(std::span<const double> actual, std::span<const double> expected, double tolerance,
                  const ComplainIf& complain_if) const {
    const auto width = static_cast<std::size_t>(head_dim_);
    double worst = 0;
    std::size_t worst_row = 0;
    for (std::size_t first = 0; first < actual.size(); first += width) {
      const double error =
          reference::output_error(actual.subspan(first, width), expected.subspan(first, width)).relative_l2;
      if (error > worst)
        worst = error, worst_row = first / width;
    }
    const auto row = static_cast<std::int64_t>(worst_row);
    complain_if(!(worst <= tolerance),
                fmt::format("relative L2 error {:.3g} > {:.3g} in batch {}, head {}, row {}", worst, tolerance,
                            row / queries_ / heads(), row / queries_ % heads(), row % queries_));
  }

  std::uint64_t seed_;
  RandomLimits limits_;
  Choices choices_;
  DataType dtype_{};
  Layout layout_{};
  std::int64_t head_dim_ = 0, batch_ = 0, kv_heads_ = 0, heads_per_kv_head_ = 0;
  std::int64_t queries_ = 0, keys_ = 0; // rows of the tensors
  std::list<HostTensor> tensors_;       // a list: views and pointers into it stay valid
  HostTensor *out_ = nullptr, *lse_ = nullptr;
  AttentionForward call_;
  Pattern pattern_;
};

/// RandomProblem(seed, limits).check(run).
template <typename Run> std::string check_random_problem(std::uint64_t seed, const RandomLimits& limits, Run&& run) {
  return RandomProblem(seed, limits).check(std::forward<Run>(run));
}

} // namespace tilewright::testing
