#include "operators/call_shape.hpp"

#include <cmath>
#include <limits>

#include <fmt/format.h>

#include "problem/relation.hpp"
#include "schedule/feasibility.hpp"
#include <tilewright/error.hpp>

namespace tilewright::operators {
namespace {

constexpr std::int64_t alignment_bytes = 16;
constexpr std::int64_t most_tokens = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t most_sequences = std::numeric_limits<std::int32_t>::max(); // batch times heads
constexpr int tensor_rank = 4;

struct Dimensions {
  int batch, token, head, depth;
};

constexpr Dimensions dimensions_of(Layout layout) {
  return layout == Layout::raster ? Dimensions{0, 1, 2, 3} : Dimensions{0, 2, 1, 3};
}

std::int64_t extent(const TensorView& tensor, int dimension) {
  return tensor.extents[static_cast<std::size_t>(dimension)];
}
std::int64_t stride(const TensorView& tensor, int dimension) {
  return tensor.strides[static_cast<std::size_t>(dimension)];
}

/// Null, misaligned, of the wrong rank, or so large that its last element has no address.
void check_memory(const TensorView& tensor, const char* name, int rank, std::int64_t alignment) {
  if (tensor.data == nullptr)
    refuse(fmt::format("{} is a null pointer", name), "memory of the runtime's device", "pass the tensor's address");
  if (reinterpret_cast<std::uintptr_t>(tensor.data) % static_cast<std::uintptr_t>(alignment) != 0)
    refuse(fmt::format("{} starts at {}", name, fmt::ptr(tensor.data)),
           fmt::format("a multiple of {} bytes", alignment), "allocate it aligned, or copy the slice that it views");
  if (tensor.rank != rank)
    refuse(fmt::format("{} has {} dimensions", name, tensor.rank), fmt::format("{} dimensions", rank),
           "reshape it; the header of the operator lists the dimensions");
  std::int64_t last = 0;
  for (int i = 0; i < rank; ++i) {
    if (extent(tensor, i) < 1)
      refuse(fmt::format("{} has extent {} in dimension {}", name, extent(tensor, i), i), "extents of 1 and more",
             "leave the call out where there is nothing to compute");
    std::int64_t reach = 0;
    if (__builtin_mul_overflow(extent(tensor, i) - 1, stride(tensor, i), &reach) || stride(tensor, i) < 0 ||
        __builtin_add_overflow(last, reach, &last))
      refuse(
          fmt::format("{} has extent {} and stride {} in dimension {}", name, extent(tensor, i), stride(tensor, i), i),
          "strides of 0 and more that stay within 64 bits", "check how the view was made");
  }
  if (last > std::numeric_limits<std::int64_t>::max() / alignment_bytes)
    refuse(fmt::format("{} reaches to element {}", name, last), "a tensor that memory can hold",
           "check how the view was made");
}

void check_tensor(const TensorView& tensor, const char* name, const TensorView& query, Layout layout) {
  check_memory(tensor, name, tensor_rank, alignment_bytes);
  if (tensor.dtype != DataType::bf16 && tensor.dtype != DataType::fp16)
    refuse(fmt::format("{} has dtype {}", name, to_string(tensor.dtype)), "bf16 or fp16", "convert it");
  if (tensor.dtype != query.dtype)
    refuse(fmt::format("{} has dtype {} and q has {}", name, to_string(tensor.dtype), to_string(query.dtype)),
           "one dtype for q, k, v and out", "convert one of them");
  const Dimensions at = dimensions_of(layout);
  if (extent(tensor, at.depth) != extent(query, at.depth))
    refuse(fmt::format("{} has head_dim {} and q has {}", name, extent(tensor, at.depth), extent(query, at.depth)),
           "one head_dim for q, k, v and out", "check the tensors' order of dimensions");
  if (stride(tensor, at.depth) != 1)
    refuse(fmt::format("{} has stride {} in its last dimension", name, stride(tensor, at.depth)),
           "stride 1 (head_dim is contiguous)", "make the tensor contiguous in its last dimension");
  const auto element_alignment = alignment_bytes / static_cast<std::int64_t>(size_of(tensor.dtype));
  for (int i = 0; i < tensor_rank - 1; ++i) {
    if (extent(tensor, i) > 1 && stride(tensor, i) % element_alignment != 0)
      refuse(fmt::format("{} has stride {} in dimension {}", name, stride(tensor, i), i),
             fmt::format("multiples of {} elements (16 bytes)", element_alignment),
             "pad that dimension, or make the tensor contiguous");
  }
  if (extent(tensor, at.token) > most_tokens)
    refuse(fmt::format("{} has {} tokens", name, extent(tensor, at.token)), fmt::format("at most {}", most_tokens),
           "split the sequence");
}

/// Elements that share an address would be written by several threads.
void check_written(const TensorView& tensor, const char* name) {
  for (int i = 0; i < tensor.rank; ++i)
    if (extent(tensor, i) > 1 && stride(tensor, i) == 0)
      refuse(fmt::format("{} has stride 0 in dimension {}", name, i), "strides above 0 for what is written",
             "give it memory of its own instead of an expanded view");
}

void check_equal(std::int64_t a, std::string_view a_name, std::int64_t b, std::string_view b_name) {
  if (a != b)
    refuse(fmt::format("{} is {} and {} is {}", a_name, a, b_name, b), "equal values", "check the tensors' shapes");
}

/// Rows are counted in 32 bits, those that fill up edge tiles too.
void check_padded_rows(const problem::Tiling& tiling) {
  if (const std::int64_t rows = tiling.token_count(Layout::tiled); rows > most_tokens)
    refuse(fmt::format("canvas {} takes {} rows in whole tiles of {}", to_string(tiling.canvas()), rows,
                       to_string(tiling.tile())),
           fmt::format("at most {} rows", most_tokens), "choose a smaller tile, or split the canvas");
}

void check_rows(std::int64_t rows, const char* name, const Extent3& canvas, std::int64_t expected) {
  if (rows != expected)
    refuse(fmt::format("{} has {} tokens", name, rows),
           fmt::format("{} tokens for canvas {} in this layout", expected, to_string(canvas)),
           "check the canvas, the layout and whether the tensors hold text");
}

void apply(const Dense&, const AttentionForward&, CallShape& shape) {
  shape.query_canvas = {1, 1, static_cast<std::int32_t>(shape.query_tokens)};
  shape.key_canvas = {1, 1, static_cast<std::int32_t>(shape.key_tokens)};
}

void apply(const SlidingTile& pattern, const AttentionForward& call, CallShape& shape) {
  const problem::Tiling tiling(pattern.canvas, pattern.tile);
  shape.query_canvas = shape.key_canvas = pattern.canvas;
  check_padded_rows(tiling);
  const std::int64_t video = tiling.token_count(call.layout);
  check_equal(shape.query_tokens, "q's tokens", shape.key_tokens, "k's tokens");
  if (!pattern.text_length) {
    check_rows(shape.query_tokens, "q", pattern.canvas, video);
  } else {
    shape.text_rows = shape.query_tokens - video;
    shape.text_length = *pattern.text_length;
    if (shape.text_rows < 0)
      check_rows(shape.query_tokens, "q", pattern.canvas, video);
    if (shape.text_length < 0 || shape.text_length > shape.text_rows)
      refuse(fmt::format("text_length is {}", shape.text_length),
             fmt::format("0 to {}, the rows that the tensors have behind the video's", shape.text_rows),
             "pass the number of valid text tokens");
  }
  const auto windows = static_cast<std::int64_t>(pattern.windows.size());
  if (windows != 1 && windows != shape.heads)
    refuse(fmt::format("{} windows are given for {} heads", windows, shape.heads),
           "one window for all heads, or one for each", "pass a list of the right length");
  for (const Window& window : pattern.windows) {
    if (window.t < 1 || window.h < 1 || window.w < 1)
      refuse(fmt::format("a window is {}", to_string(window)), "extents of 1 tile and more",
             "use a window as large as the canvas to see everything");
  }
  if (windows > 1 && shape.heads > SlidingTileParameters::max_heads)
    throw Error(ErrorCode::unsupported, fmt::format("windows per head for {} heads", shape.heads),
                fmt::format("at most {} heads in one call", SlidingTileParameters::max_heads),
                "split the heads over several calls");
}

void check_index_view(const TensorView& view, const char* name, int rank) {
  check_memory(view, name, rank, static_cast<std::int64_t>(sizeof(std::int32_t)));
  if (view.dtype != DataType::int32)
    refuse(fmt::format("{} has dtype {}", name, to_string(view.dtype)), "int32", "convert it");
  if (stride(view, rank - 1) != 1 && extent(view, rank - 1) > 1)
    refuse(fmt::format("{} has stride {} in its last dimension", name, stride(view, rank - 1)), "stride 1",
           "make it contiguous in its last dimension");
}

/// Lists may be shared by all batches or all heads: extent 1.
void check_list_extents(const TensorView& view, const char* name, const CallShape& shape, std::int64_t tiles) {
  const auto is_shared_or = [&](int dimension, std::int64_t whole) {
    return extent(view, dimension) == 1 || extent(view, dimension) == whole;
  };
  if (!is_shared_or(0, shape.batch) || !is_shared_or(1, shape.heads) || extent(view, 2) != tiles)
    refuse(fmt::format("{} has extents {} x {} x {}", name, extent(view, 0), extent(view, 1), extent(view, 2)),
           fmt::format("{} or 1, {} or 1, {} query tiles", shape.batch, shape.heads, tiles),
           "build the lists for this batch, these heads and this canvas");
}

void check_sizes(const std::optional<TensorView>& sizes, const char* name, const CallShape& shape, std::int64_t tiles,
                 Layout layout) {
  if (!sizes)
    return;
  if (layout != Layout::tiled)
    refuse(fmt::format("{} is given in the {} layout", name, to_string(layout)), "the tiled layout",
           "leave it out: in the raster layout the canvas says which tokens are valid");
  const int rank = sizes->rank == 2 ? 2 : 1;
  check_index_view(*sizes, name, rank);
  check_equal(extent(*sizes, rank - 1), name, tiles, "the number of tiles");
  if (rank == 2 && extent(*sizes, 0) != 1)
    check_equal(extent(*sizes, 0), name, shape.batch, "the batch");
}

void check_blend(const AttentionForward& call, const Pattern& pattern, const CallShape& shape) {
  const auto* lists = std::get_if<BlockList>(&pattern);
  if (!call.coarse) {
    if (call.gate || call.fine)
      refuse(fmt::format("{} is given without coarse", call.gate ? "gate" : "fine"), "both, or neither",
             "give the coarse result, or leave it out");
    return;
  }
  if (lists == nullptr)
    throw Error(ErrorCode::unsupported, "coarse is given with a pattern that is no BlockList", "pattern=block_list",
                "add the coarse result to the output yourself");
  check_memory(*call.coarse, "coarse", tensor_rank, alignment_bytes);
  check_dense(*call.coarse, "coarse", DataType::float32,
              {shape.batch, shape.heads, problem::Tiling(lists->canvas, lists->tile).tile_count(), shape.head_dim});
  if (call.gate)
    check_like(*call.gate, "gate", call.out, "out", call.layout, false);
  if (call.fine)
    check_like(*call.fine, "fine", call.out, "out", call.layout, true);
}

void apply(const BlockList& pattern, const AttentionForward& call, CallShape& shape) {
  const problem::Tiling queries(pattern.canvas, pattern.tile);
  const problem::Tiling keys(pattern.key_canvas.value_or(pattern.canvas), pattern.key_tile.value_or(pattern.tile));
  check_padded_rows(queries);
  check_padded_rows(keys);
  shape.query_canvas = queries.canvas();
  shape.key_canvas = keys.canvas();
  check_rows(shape.query_tokens, "q", queries.canvas(), queries.token_count(call.layout));
  check_rows(shape.key_tokens, "k", keys.canvas(), keys.token_count(call.layout));
  check_lists_of(pattern.counts, pattern.indices, shape.batch, shape.heads, queries.tile_count());
  check_sizes(pattern.query_sizes, "query_sizes", shape, queries.tile_count(), call.layout);
  check_sizes(pattern.key_sizes, "key_sizes", shape, keys.tile_count(), call.layout);
}

} // namespace

void refuse(std::string problem, std::string allowed, std::string remedy) {
  throw Error(ErrorCode::invalid_argument, std::move(problem), std::move(allowed), std::move(remedy));
}

void check_tokens(const TensorView& tensor, const char* name, Layout layout, const Extent3& canvas,
                  const Extent3& tile) {
  check_tensor(tensor, name, tensor, layout);
  const problem::Tiling tiling(canvas, tile);
  check_padded_rows(tiling);
  check_rows(extent(tensor, dimensions_of(layout).token), name, canvas, tiling.token_count(layout));
}

void check_dense(const TensorView& tensor, const char* name, DataType dtype,
                 std::initializer_list<std::int64_t> extents) {
  check_memory(tensor, name, static_cast<int>(extents.size()), static_cast<std::int64_t>(size_of(dtype)));
  if (tensor.dtype != dtype)
    refuse(fmt::format("{} has dtype {}", name, to_string(tensor.dtype)), std::string(to_string(dtype)), "convert it");
  const TensorView dense = TensorView::contiguous(tensor.data, dtype, extents);
  for (int i = 0; i < tensor.rank; ++i) {
    if (extent(tensor, i) != extent(dense, i))
      refuse(fmt::format("{} has extent {} in dimension {}", name, extent(tensor, i), i),
             fmt::format("{} for this call", extent(dense, i)), "check the tensors' shapes");
    if (extent(tensor, i) > 1 && stride(tensor, i) != stride(dense, i))
      refuse(fmt::format("{} has stride {} in dimension {}", name, stride(tensor, i), i),
             fmt::format("{}: a contiguous tensor", stride(dense, i)), "make it contiguous");
  }
}

void check_tile_sizes(const std::optional<TensorView>& sizes, const char* name, std::int64_t batch, std::int64_t tiles,
                      Layout layout) {
  CallShape shape;
  shape.batch = batch;
  check_sizes(sizes, name, shape, tiles, layout);
}

void check_lists_of(const TensorView& counts, const TensorView& indices, std::int64_t batch, std::int64_t heads,
                    std::int64_t tiles) {
  CallShape shape;
  shape.batch = batch;
  shape.heads = heads;
  check_index_view(counts, "counts", 3);
  check_index_view(indices, "indices", 4);
  check_list_extents(counts, "counts", shape, tiles);
  check_list_extents(indices, "indices", shape, tiles);
}

Strides strides_of(const TensorView& tensor, Layout layout) {
  const Dimensions at = dimensions_of(layout);
  return {stride(tensor, at.batch), stride(tensor, at.head), stride(tensor, at.token)};
}

void check_log_sum_exp(const TensorView& lse, const std::string& name, const CallShape& shape, bool written) {
  check_memory(lse, name.c_str(), 3, static_cast<std::int64_t>(sizeof(float)));
  if (lse.dtype != DataType::float32)
    refuse(fmt::format("{} has dtype {}", name, to_string(lse.dtype)), "float32", "allocate it as float32");
  check_equal(extent(lse, 0), name + "'s batch", shape.batch, "q's batch");
  check_equal(extent(lse, 1), name + "'s heads", shape.heads, "q's heads");
  check_equal(extent(lse, 2), name + "'s tokens", shape.query_tokens, "q's tokens");
  if (stride(lse, 2) != 1 && extent(lse, 2) > 1)
    refuse(fmt::format("{} has stride {} in its last dimension", name, stride(lse, 2)), "stride 1",
           "make it contiguous in its last dimension");
  if (written)
    check_written(lse, name.c_str());
}

void check_like(const TensorView& tensor, const char* name, const TensorView& like, const char* like_name,
                Layout layout, bool written) {
  check_tensor(tensor, name, like, layout);
  for (int i = 0; i < tensor_rank; ++i)
    if (extent(tensor, i) != extent(like, i))
      refuse(fmt::format("{} has extent {} in dimension {} and {} has {}", name, extent(tensor, i), i, like_name,
                         extent(like, i)),
             fmt::format("the extents of {}", like_name), "check the tensors' shapes");
  if (written)
    check_written(tensor, name);
}

CallShape check_call(const AttentionForward& call, const Pattern& pattern) {
  check_tensor(call.q, "q", call.q, call.layout);
  check_tensor(call.k, "k", call.q, call.layout);
  check_tensor(call.v, "v", call.q, call.layout);
  check_tensor(call.out, "out", call.q, call.layout);
  check_written(call.out, "out");
  const Dimensions at = dimensions_of(call.layout);
  CallShape shape;
  shape.batch = extent(call.q, at.batch);
  shape.heads = extent(call.q, at.head);
  shape.kv_heads = extent(call.k, at.head);
  shape.query_tokens = extent(call.q, at.token);
  shape.key_tokens = extent(call.k, at.token);
  shape.head_dim = extent(call.q, at.depth);
  std::int64_t sequences = 0;
  if (__builtin_mul_overflow(shape.batch, shape.heads, &sequences) || sequences > most_sequences)
    refuse(fmt::format("q has batch {} and {} heads", shape.batch, shape.heads),
           fmt::format("at most {} heads over all batches", most_sequences), "split the batch");
  check_equal(extent(call.k, at.batch), "k's batch", shape.batch, "q's batch");
  check_equal(extent(call.v, at.batch), "v's batch", shape.batch, "q's batch");
  check_equal(extent(call.v, at.head), "v's heads", shape.kv_heads, "k's heads");
  check_equal(extent(call.v, at.token), "v's tokens", shape.key_tokens, "k's tokens");
  check_equal(extent(call.out, at.batch), "out's batch", shape.batch, "q's batch");
  check_equal(extent(call.out, at.head), "out's heads", shape.heads, "q's heads");
  check_equal(extent(call.out, at.token), "out's tokens", shape.query_tokens, "q's tokens");
  if (shape.heads % shape.kv_heads != 0)
    refuse(fmt::format("q has {} heads and k has {}", shape.heads, shape.kv_heads),
           "a number of key/value heads that divides the query heads",
           "repeat the key/value heads, or pad the query's");
  if (shape.head_dim != 64 && shape.head_dim != 128)
    throw Error(ErrorCode::unsupported, fmt::format("head_dim is {}", shape.head_dim), "64 or 128",
                "pad q, k and v with zeros up to 64 or 128 and pass the scale of the true head_dim");
  if (call.scale && !(std::isfinite(*call.scale) && *call.scale > 0))
    refuse(fmt::format("scale is {}", *call.scale), "a finite number above 0", "negate q instead of the scale");
  if (call.lse)
    check_log_sum_exp(*call.lse, "lse", shape, true);
  std::visit([&](const auto& chosen) { apply(chosen, call, shape); }, pattern);
  check_blend(call, pattern, shape);
  return shape;
}

Problem problem_of_checked(const AttentionForward& call, const Pattern& pattern, const CallShape& shape) {
  Problem problem;
  problem.head_dim = static_cast<std::int32_t>(shape.head_dim);
  problem.dtype = call.q.dtype;
  problem.layout = call.layout;
  if (const auto* sliding = std::get_if<SlidingTile>(&pattern)) {
    problem.pattern = PatternKind::sliding_tile;
    problem.tile = problem.key_tile = sliding->tile;
    problem.window = sliding->windows.size() == 1 ? sliding->windows.front() : Window{};
    problem.text = sliding->text_length ? Text::present : Text::absent;
    problem.edges = problem::Tiling(sliding->canvas, sliding->tile).ragged() ? Edges::clipped : Edges::full;
  } else if (const auto* lists = std::get_if<BlockList>(&pattern)) {
    problem.pattern = PatternKind::block_list;
    problem.tile = lists->tile;
    problem.key_tile = lists->key_tile.value_or(lists->tile);
    const bool ragged = problem::Tiling(shape.query_canvas, problem.tile).ragged() ||
                        problem::Tiling(shape.key_canvas, problem.key_tile).ragged();
    problem.edges = lists->query_sizes || lists->key_sizes ? Edges::sized : ragged ? Edges::clipped : Edges::full;
    problem.blend = call.coarse ? call.gate ? Blend::gated : Blend::coarse : Blend::none;
    problem.sharing = lists->neighbours_share ? Sharing::neighbours : Sharing::unknown;
  } else {
    problem.pattern = PatternKind::dense;
    problem.edges = shape.key_tokens % schedule::dense_key_block == 0 ? Edges::full : Edges::clipped;
  }
  validate(problem);
  return problem;
}

} // namespace tilewright::operators
