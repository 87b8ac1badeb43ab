// Random problems of video sparse attention: one seed makes a call with its host tensors, check() runs any
// implementation on them and says what is wrong with what it wrote. As support_random_problem.hpp does for attention.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <list>
#include <optional>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "reference/compare.hpp"
#include "reference/convert.hpp"
#include "reference/tensor.hpp"
#include "support_random_problem.hpp"
#include <tilewright/reference.hpp>
#include <tilewright/video_sparse.hpp>

namespace tilewright::testing {

struct VideoSparseLimits {
  std::int64_t max_tiles = 24, max_tokens = 2048; // of a canvas
  double max_flops = 4e7;                         // of dense attention; batch and heads shrink to meet it
  std::optional<DataType> dtype{};
  std::optional<std::int32_t> head_dim{};
  std::optional<Layout> layout{};
  std::optional<double> activation{}; // what q, k and v are drawn with
  bool training = false;              // always keeps the fine result and its LSE; large gates, too
  bool opposed = false;               // every score is far below 0; sizes with empty tiles wherever they can be
  bool keyless = false;               // sizes leave no key at all, in the tiled layout
  std::optional<Canvas> canvas{};     // this one, in tiles of 4x4x4, with lists of one tile
};

class RandomVideoSparse {
public:
  explicit RandomVideoSparse(std::uint64_t seed, const VideoSparseLimits& limits = {}, const ChoiceList* list = nullptr)
      : seed_(seed), limits_(limits), choices_(seed, list) {
    dtype_ = limits.dtype.value_or(chance(0.5) ? DataType::bf16 : DataType::fp16);
    head_dim_ = limits.head_dim.value_or(chance(0.5) ? 64 : 128);
    call_.layout = limits.layout.value_or(chance(0.6) ? Layout::raster : Layout::tiled);
    call_.tile = limits.canvas ? Tile{4, 4, 4} : pick<Tile>({{4, 4, 4}, {4, 4, 4}, {2, 8, 8}, {4, 8, 8}});
    call_.canvas = draw_canvas();
    if (chance(0.3))
      call_.key_canvas = draw_canvas();
    batch_ = integer(1, 2);
    kv_heads_ = integer(1, 2);
    heads_ = kv_heads_ * integer(1, 3);
    const problem::Tiling queries(call_.canvas, call_.tile), keys(key_canvas(), call_.tile);
    shrink(queries, keys);
    call_.topk = limits_.canvas ? 1 : chance(0.2) ? keys.tile_count() : integer(1, keys.tile_count());
    activation_ = limits.activation.value_or(pick({1.0, 1.0, 4.0, 16.0}));
    ties_ = static_cast<int>(integer(0, 3)); // 0, 1: none on purpose; 2: every key alike; 3: three kinds of key tiles
    draw(queries, keys);
  }

  [[nodiscard]] ChoiceList choices() const { return choices_.made(); }
  [[nodiscard]] const VideoSparseAttention& call() const noexcept { return call_; }
  [[nodiscard]] std::list<HostTensor>& tensors() noexcept { return tensors_; }
  [[nodiscard]] double activation() const noexcept { return activation_; }
  /// Once check() has run: where the call's workspace has its parts.
  [[nodiscard]] const VideoSparseWorkspace& workspace() const noexcept { return parts_; }
  [[nodiscard]] std::uint64_t lists() const noexcept { return lists_; }
  [[nodiscard]] std::uint64_t different_lists() const noexcept { return different_; }

  [[nodiscard]] std::string description() const {
    return fmt::format("{} batch={} heads={}/{} canvas={} key_canvas={} topk={} activation={} ties={}{}{}{}{}",
                       to_string(Runtime::problem_of(call_)), batch_, heads_, kv_heads_, to_string(call_.canvas),
                       to_string(key_canvas()), call_.topk, activation_, ties_, call_.gate ? " gate" : "",
                       call_.fine ? " fine" : "", call_.query_sizes ? " query_sizes" : "",
                       call_.key_sizes ? " key_sizes" : "");
  }

  /// The call with every pointer replaced by move(pointer), the workspace's too once there is one.
  template <typename Move> [[nodiscard]] VideoSparseAttention relocated(Move move) const {
    VideoSparseAttention call = call_;
    for (TensorView* view : {&call.q, &call.k, &call.v, &call.out})
      view->data = move(view->data);
    for (std::optional<TensorView>* view : {&call.gate, &call.lse, &call.fine, &call.query_sizes, &call.key_sizes})
      if (*view)
        (*view)->data = move((*view)->data);
    call.workspace = move(call.workspace);
    return call;
  }

  /// Makes a workspace of the runtime's size, poisons it and the outputs, calls run(call), and compares. Empty where
  /// all is right.
  template <typename Run> std::string check(Runtime& runtime, Run&& run) {
    const std::size_t bytes = runtime.workspace_of(call_).bytes;
    if (workspace_ == nullptr) // poison of two bytes an element; aligned as the guards are
      workspace_ = &tensors_.emplace_back(DataType::bf16, Extents{static_cast<std::int64_t>(bytes / 2 + 128)});
    const auto address = reinterpret_cast<std::uintptr_t>(workspace_->view().data);
    call_.workspace = reinterpret_cast<void*>((address + 255) / 256 * 256);
    call_.workspace_bytes = bytes;
    for (HostTensor* tensor : outputs())
      tensor->poison_all();
    workspace_->poison_all();
    const auto before = inputs();
    run(call_);
    parts_ = runtime.workspace_of(call_);
    std::string complaints;
    const auto complain_if = [&](bool wrong, const std::string& complaint) {
      if (wrong)
        complaints += "\n  " + complaint;
    };
    complain_if(inputs() != before, "an input was written to");
    for (HostTensor* tensor : outputs()) {
      complain_if(tensor->unwritten() > 0, fmt::format("{} elements were not written", tensor->unwritten()));
      complain_if(tensor->damaged_bytes() > 0, fmt::format("{} bytes beside an output", tensor->damaged_bytes()));
    }
    compare(parts_, complain_if);
    return complaints.empty() ? "" : fmt::format("seed {}: {}{}", seed_, description(), complaints);
  }

private:
  using Extents = std::initializer_list<std::int64_t>;

  std::int64_t integer(std::int64_t least, std::int64_t most) { return choices_.integer(least, most); }
  bool chance(double probability) { return integer(0, 999) < static_cast<std::int64_t>(probability * 1000); }
  template <typename Value> Value pick(std::initializer_list<Value> values) {
    return values.begin()[integer(0, static_cast<std::int64_t>(values.size()) - 1)];
  }
  [[nodiscard]] Canvas key_canvas() const { return call_.key_canvas.value_or(call_.canvas); }

  Canvas draw_canvas() {
    if (limits_.canvas)
      return *limits_.canvas;
    Extent3 count{1, 1, 1};
    for (std::int64_t attempt = integer(0, 9); attempt > 0; --attempt) {
      Extent3 larger = count;
      ++*pick({&larger.t, &larger.h, &larger.w});
      if (larger.volume() <= limits_.max_tiles && larger.volume() * call_.tile.volume() <= limits_.max_tokens)
        count = larger;
    }
    const bool ragged = chance(0.5);
    const auto extent = [&](std::int32_t tile_extent, std::int32_t tiles) {
      return static_cast<std::int32_t>(tile_extent * tiles - (ragged ? integer(0, tile_extent - 1) : 0));
    };
    const std::int32_t t = extent(call_.tile.t, count.t), h = extent(call_.tile.h, count.h),
                       w = extent(call_.tile.w, count.w);
    return {t, h, w};
  }

  void shrink(const problem::Tiling& queries, const problem::Tiling& keys) {
    const double flops = 4.0 * static_cast<double>(head_dim_) * static_cast<double>(queries.token_count(call_.layout)) *
                         static_cast<double>(keys.token_count(call_.layout));
    if (flops * static_cast<double>(batch_ * heads_) > limits_.max_flops)
      batch_ = 1;
    if (flops * static_cast<double>(batch_ * heads_) > limits_.max_flops)
      heads_ = kv_heads_;
    if (flops * static_cast<double>(batch_ * heads_) > limits_.max_flops)
      heads_ = kv_heads_ = 1;
  }

  HostTensor& token_tensor(std::int64_t heads, std::int64_t tokens) {
    const std::int64_t gap = chance(0.3) ? 8 * integer(1, 3) : 0;
    if (call_.layout == Layout::raster) {
      const std::int64_t token = heads * head_dim_ + gap;
      return tensors_.emplace_back(dtype_, Extents{batch_, tokens, heads, head_dim_},
                                   std::vector{tokens * token, token, head_dim_, std::int64_t{1}});
    }
    const std::int64_t token = head_dim_ + gap;
    return tensors_.emplace_back(dtype_, Extents{batch_, heads, tokens, head_dim_},
                                 std::vector{heads * tokens * token, tokens * token, token, std::int64_t{1}});
  }

  void draw(const problem::Tiling& queries, const problem::Tiling& keys) {
    if (call_.layout == Layout::tiled && (chance(0.4) || limits_.opposed || limits_.keyless)) {
      call_.key_sizes = draw_sizes(keys);
      if (limits_.keyless)
        tensors_.back().fill([](auto, auto, auto, auto) { return std::optional(0.0); });
      if (chance(0.7))
        call_.query_sizes = draw_sizes(queries);
    }
    const std::int64_t query_tokens = queries.token_count(call_.layout), key_tokens = keys.token_count(call_.layout);
    HostTensor &q = token_tensor(heads_, query_tokens), &k = token_tensor(kv_heads_, key_tokens),
               &v = token_tensor(kv_heads_, key_tokens);
    call_.q = q.view();
    call_.k = k.view();
    call_.v = v.view();
    out_ = &token_tensor(heads_, query_tokens);
    call_.out = out_->view();
    std::normal_distribution<double> normal;
    // Padding stays poison: NaN.
    const auto valid = [&](const problem::Tiling& tiling, const std::optional<TensorView>& sizes, auto b, auto row) {
      if (sizes) {
        const std::int64_t volume = call_.tile.volume();
        const auto* data = static_cast<const std::int32_t*>(sizes->data);
        return row % volume < data[(sizes->rank == 2 ? b * sizes->strides[0] : 0) + row / volume];
      }
      return tiling.coordinate_of(row, call_.layout).has_value();
    };
    const auto row_of = [&](auto i, auto j) { return call_.layout == Layout::raster ? i : j; };
    const auto tile_of = [&](auto row) {
      const auto coordinate = keys.coordinate_of(row, call_.layout);
      return call_.layout == Layout::tiled ? row / call_.tile.volume()
                                           : keys.tile_row_of(*coordinate, call_.layout).tile;
    };
    std::vector<double> kinds(static_cast<std::size_t>(3 * head_dim_));
    for (double& kind : kinds)
      kind = normal(choices_.generator());
    const double shift = limits_.opposed ? 4 : 0;
    q.fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
      return valid(queries, call_.query_sizes, b, row_of(i, j))
                 ? std::optional(activation_ * (normal(choices_.generator()) + shift))
                 : std::nullopt;
    });
    k.fill([&](auto b, auto i, auto j, auto e) -> std::optional<double> {
      if (!valid(keys, call_.key_sizes, b, row_of(i, j)))
        return std::nullopt;
      if (ties_ < 2)
        return activation_ * (normal(choices_.generator()) - shift);
      const std::int64_t kind = ties_ == 2 ? 0 : tile_of(row_of(i, j)) % 3;
      return activation_ * kinds[static_cast<std::size_t>(kind * head_dim_ + e)];
    });
    v.fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
      return valid(keys, call_.key_sizes, b, row_of(i, j))
                 ? std::optional(activation_ * (normal(choices_.generator()) + 0.5))
                 : std::nullopt;
    });
    if (chance(0.8)) {
      HostTensor& gate = token_tensor(heads_, query_tokens);
      const double largeness = limits_.training ? pick({1.0, 16.0}) : 1.0; // large: what the coarse branch adds shows
      gate.fill([&](auto b, auto i, auto j, auto) -> std::optional<double> {
        return valid(queries, call_.query_sizes, b, row_of(i, j))
                   ? std::optional(largeness * normal(choices_.generator()))
                   : std::nullopt;
      });
      call_.gate = gate.view();
    }
    if (chance(0.4) || limits_.training) {
      fine_ = &token_tensor(heads_, query_tokens);
      call_.fine = fine_->view();
    }
    if (chance(0.6) || limits_.training) {
      lse_ = &tensors_.emplace_back(DataType::float32, Extents{batch_, heads_, query_tokens});
      call_.lse = lse_->view();
    }
    if (chance(0.2))
      call_.scale = static_cast<float>(integer(1, 20)) / 64.0f;
  }

  /// Of every kind: full, empty, between. One tile is never empty.
  TensorView draw_sizes(const problem::Tiling& tiling) {
    const std::int64_t tiles = tiling.tile_count(), volume = call_.tile.volume();
    const bool shared = chance(0.5);
    HostTensor& sizes = shared ? tensors_.emplace_back(DataType::int32, Extents{tiles})
                               : tensors_.emplace_back(DataType::int32, Extents{batch_, tiles});
    sizes.fill([&](auto i, auto j, auto, auto) -> std::optional<double> {
      const auto tile = shared ? i : j;
      const std::int64_t least = tile == 0 ? 1 : 0;
      return static_cast<double>(pick({volume, integer(least, volume), integer(least, 3)}));
    });
    return sizes.view();
  }

  [[nodiscard]] std::vector<HostTensor*> outputs() const {
    std::vector<HostTensor*> all{out_};
    if (fine_ != nullptr)
      all.push_back(fine_);
    if (lse_ != nullptr)
      all.push_back(lse_);
    return all;
  }

  [[nodiscard]] std::vector<std::byte> inputs() const {
    const auto written = outputs();
    std::vector<std::byte> bytes;
    for (const HostTensor& tensor : tensors_)
      if (std::find(written.begin(), written.end(), &tensor) == written.end() && &tensor != workspace_)
        bytes.insert(bytes.end(), tensor.allocation(), tensor.allocation() + tensor.allocation_bytes());
    return bytes;
  }

  template <typename ComplainIf> void compare(const VideoSparseWorkspace& workspace, const ComplainIf& complain_if) {
    const double unit = dtype_ == DataType::bf16 ? 1.0 / 128 : 1.0 / 1024; // of the last place, relative, at most
    const Tolerances tolerances = Tolerances::of(dtype_);
    const reference::VideoSparseResult expected =
        reference::video_sparse_attention(call_, &workspace.counts, &workspace.indices);
    // A mean may be rounded the other way where its float32 sum stands near the middle.
    const auto compare_means = [&](const char* name, const TensorView& view, const std::vector<double>& wanted) {
      const auto* bits = static_cast<const std::uint16_t*>(view.data);
      double worst = 0;
      for (std::size_t i = 0; i < wanted.size(); ++i) {
        const double got = reference::decode(dtype_, bits[i]), most = unit * std::abs(wanted[i]) + 1e-6;
        worst = std::max(worst, std::isfinite(got) ? std::abs(got - wanted[i]) / most : 1e9);
      }
      complain_if(!(worst <= 1), fmt::format("{} is wrong by {:.3g} units", name, worst));
    };
    compare_means("pooled_query", workspace.pooled_query, expected.pooled_query);
    compare_means("pooled_key", workspace.pooled_key, expected.pooled_key);
    compare_means("pooled_value", workspace.pooled_value, expected.pooled_value);

    // The selection, from the means that it was made of.
    SelectTiles select;
    select.query_means = workspace.pooled_query;
    select.key_means = workspace.pooled_key;
    select.value_means = workspace.pooled_value;
    select.counts = workspace.counts;
    select.indices = workspace.indices;
    select.key_sizes = call_.key_sizes;
    select.scale = call_.scale;
    const reference::Selection selection = reference::select_tiles(select);
    const reference::SelectionComparison comparison = reference::compare_selection(select, selection);
    complain_if(!comparison.malformed.empty(), comparison.malformed);
    complain_if(!(comparison.worst <= 1),
                fmt::format("a list is wrong by {:.3g} times what is allowed", comparison.worst));
    lists_ = static_cast<std::uint64_t>(comparison.lists);
    different_ = static_cast<std::uint64_t>(comparison.different);
    const auto floats = [](const TensorView& view, std::size_t count) {
      const auto* data = static_cast<const float*>(view.data);
      return std::vector<double>(data, data + count);
    };
    const double coarse_error =
        reference::output_error(floats(workspace.coarse_output, selection.out.size()), selection.out).relative_l2;
    complain_if(!(coarse_error <= tolerances.relative_l2), fmt::format("coarse_output error {:.3g}", coarse_error));
    check_lse("coarse_lse", floats(workspace.coarse_lse, selection.lse.size()), selection.lse, complain_if);

    if (!comparison.malformed.empty())
      return;
    check_output("out", call_.out, expected.out, tolerances, complain_if);
    if (call_.fine)
      check_output("fine", *call_.fine, expected.fine, tolerances, complain_if);
    if (call_.lse)
      check_lse("lse", reference::read_lse(*call_.lse), expected.lse, complain_if);
  }

  template <typename ComplainIf>
  void check_output(const char* name, const TensorView& view, const std::vector<double>& expected,
                    const Tolerances& tolerances, const ComplainIf& complain_if) const {
    const auto actual = reference::read_tensor(view, call_.layout);
    const double error = reference::output_error(actual, expected).relative_l2;
    complain_if(!(error <= tolerances.relative_l2), fmt::format("{}'s relative L2 error is {:.3g}", name, error));
    double worst = 0;
    const auto width = static_cast<std::size_t>(head_dim_);
    for (std::size_t first = 0; first < actual.size(); first += width) {
      const double of_row =
          reference::output_error(std::span(actual).subspan(first, width), std::span(expected).subspan(first, width))
              .relative_l2;
      worst = std::max(worst, of_row);
    }
    complain_if(!(worst <= 2 * tolerances.row_relative_l2), // two terms may cancel in part
                fmt::format("a row of {} has relative L2 error {:.3g}", name, worst));
  }

  /// Sums of up to 128 float32 products, each with an error of the last place of a score: it grows with them.
  template <typename ComplainIf>
  static void check_lse(const char* name, const std::vector<double>& actual, const std::vector<double>& expected,
                        const ComplainIf& complain_if) {
    double largest = 0;
    for (const double value : expected)
      largest = std::isfinite(value) ? std::max(largest, std::abs(value)) : largest;
    const double error = reference::lse_error(actual, expected), tolerance = 1e-4 + 4e-6 * largest;
    complain_if(!(error <= tolerance), fmt::format("{} error {:.3g} > {:.3g}", name, error, tolerance));
  }

  std::uint64_t seed_;
  VideoSparseLimits limits_;
  Choices choices_;
  DataType dtype_{};
  std::int64_t head_dim_ = 0, batch_ = 0, heads_ = 0, kv_heads_ = 0;
  double activation_ = 1;
  int ties_ = 0;
  std::uint64_t lists_ = 0, different_ = 0;
  std::list<HostTensor> tensors_; // a list: views and pointers into it stay valid
  HostTensor *out_ = nullptr, *fine_ = nullptr, *lse_ = nullptr, *workspace_ = nullptr;
  VideoSparseAttention call_;
  VideoSparseWorkspace parts_;
};

} // namespace tilewright::testing
