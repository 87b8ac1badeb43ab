// A problem: what to compute, nothing about how. One line of text names it everywhere.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include <tilewright/types.hpp>

namespace tilewright {

/// One kernel each, but for those at the end, which launch several of the others.
enum class Operator : std::uint8_t {
  attention_forward,
  attention_backward_delta, // what each query row contributes to the gradients: from out, dout and lse
  attention_backward_key,   // dk and dv
  attention_backward_query, // dq
  pool_tiles,               // the means of each tile's tokens
  select_tiles,             // coarse attention over the means, and which key tiles each query tile chooses
  list_mask,                // block lists out of a mask
  transpose_lists,          // which query tiles list a key tile
  blend_backward,           // the gradients of gate and coarse, of out = fine + gate * coarse
  coarse_backward_query,    // the coarse attention's gradient through the queries' means: each token's share
  coarse_backward_key,      // and through those of keys and values
  video_sparse_attention,   // pool_tiles, select_tiles, attention_forward
};
enum class PatternKind : std::uint8_t { dense, sliding_tile, block_list };

/// Whether the problem has text tokens after the video's.
enum class Text : std::uint8_t {
  absent,
  present,
  open // decided by the call
};

/// How the valid tokens of a tile are known.
enum class Edges : std::uint8_t {
  full,    // the canvas (dense: the key length) is a multiple of the tile (of the key block): all are valid
  clipped, // ragged canvas: edge tiles hold fewer tokens
  sized,   // an array gives each tile's count (tiled layout, block lists)
  open     // decided by the call
};

/// What is added to the attention's result, with pattern=block_list only.
enum class Blend : std::uint8_t {
  none,
  coarse, // out = fine + coarse, the coarse row of the query's tile
  gated   // out = fine + gate * coarse, the gate elementwise
};

/// What is known of block lists beforehand, for the choice of a schedule.
enum class Sharing : std::uint8_t {
  unknown,
  neighbours // query tiles that are neighbours share most of their lists
};

/// All that the generated source depends on, other than schedule and architecture. A plain value without
/// padding: compared and hashed byte by byte.
struct Problem {
  Extent3 tile{};     // tokens; dense: 0x0x0
  Extent3 key_tile{}; // tokens; the same as tile except for block lists between different tilings
  Extent3 window{};   // tiles; 0x0x0: windows are given per head at run time, or the pattern has none
  std::int32_t head_dim = 128;
  Operator op = Operator::attention_forward;
  PatternKind pattern = PatternKind::dense;
  DataType dtype = DataType::bf16;
  Layout layout = Layout::raster;
  Text text = Text::absent;
  Edges edges = Edges::open;
  Blend blend = Blend::none;
  Sharing sharing = Sharing::unknown;

  friend bool operator==(const Problem&, const Problem&) = default;
};
static_assert(std::has_unique_object_representations_v<Problem>);

/// "attention_forward": also the name of the kernel's entry, and the first part of its template's file name.
/// video_sparse_attention has neither.
std::string_view to_string(Operator op) noexcept;

/// The problem's one line, for example
///     attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=1,edges=full,dtype=bf16,head_dim=128,layout=raster
/// Fields that are open, or that the operator or the pattern has no use for, are left out. Others:
///     pool_tiles:tile=4x4x4,edges=full,dtype=bf16,head_dim=128,layout=raster
///     select_tiles:dtype=bf16,head_dim=128
///     coarse_backward_query:dtype=bf16,head_dim=128           coarse_backward_key: the same
///     blend_backward: as video_sparse_attention
///     list_mask:    transpose_lists:
///     video_sparse_attention:tile=4x4x4,blend=gated,dtype=bf16,head_dim=128,layout=raster
/// parse_problem(to_string(p)) == p.
std::string to_string(const Problem& problem);

/// The inverse. Fields may stand in any order; dtype=bf16, head_dim=128, layout=raster, tile=6x8x8 (sliding_tile)
/// or 4x4x4 (block_list), window=per_head, blend=none (gated for video_sparse_attention and blend_backward),
/// sharing=unknown are the defaults; text and edges are open where they are not given. Throws invalid_argument, naming
/// the field, its value and what is allowed; and whatever validate() throws.
Problem parse_problem(std::string_view line);

/// Throws invalid_argument or unsupported where no kernel computes this problem on any architecture.
void validate(const Problem& problem);

/// Whether the operator is a step of attention's backward pass.
constexpr bool is_backward(Operator op) noexcept {
  return op == Operator::attention_backward_delta || op == Operator::attention_backward_key ||
         op == Operator::attention_backward_query;
}

/// The kernels of the backward pass of a forward problem (attention_forward or video_sparse_attention) in the order in
/// which they run, but for transpose_lists.
std::vector<Problem> backward_steps(const Problem& forward);

/// The problem with every open property decided, in all ways, and in place of an operator of several kernels their
/// problems: what prepare() compiles.
std::vector<Problem> closed_variants(const Problem& problem);

} // namespace tilewright
