// The same maths in plain C++ and float64, on the CPU. What every test compares with; also a device of its own.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <tilewright/pattern.hpp>
#include <tilewright/runtime.hpp>
#include <tilewright/video_sparse.hpp>

namespace tilewright::reference {

/// Dense row-major float64 results, always complete.
struct Result {
  std::vector<double> out; // [batch, heads, query tokens, head_dim], token order of the call's layout
  std::vector<double> lse; // [batch, heads, query tokens]
};

/// Host memory in, float64 out: inputs are read in their own type and converted. Rows without keys and padding rows
/// give 0 and -inf. Independent of the kernels: it asks pair by pair whether a query attends to a key
/// (reference/relation.hpp) and shares no iteration code with them. threads = 0: all cores.
Result attention_forward(const AttentionForward& call, const Pattern& pattern, int threads = 0);

/// The same, rounded to the call's types and written to call.out and call.lse.
void attention_forward_into(const AttentionForward& call, const Pattern& pattern, int threads = 0);

/// Means of each tile's valid tokens, rounded to the tokens' type: [batch, heads, tiles, head_dim]. An empty tile has
/// the mean 0. Reads call.tokens, writes nothing.
std::vector<double> pool_tiles(const PoolTiles& call);

/// Coarse attention over means, and the selection.
struct Selection {
  std::vector<double> out;           // [batch, heads, query tiles, head_dim]; empty without value_means
  std::vector<double> lse;           // [batch, heads, query tiles]
  std::vector<std::int32_t> indices; // [batch, heads, query tiles, topk]
};
/// Reads the means (and key_sizes) of the call; topk is the extent of its indices, which are not looked at.
Selection select_tiles(const SelectTiles& call, int threads = 0);

/// How someone's lists differ from the reference's. They may where two scores are so close that their float32 sums of
/// rounded means may order them differently: within 2^-7 * scale * sum |query mean * key mean|.
struct SelectionComparison {
  std::int64_t lists = 0, different = 0;
  double worst = 0; // infinite for a broken tie of equal means, else the largest difference of swapped scores over what
                    // is allowed: right up to 1
  std::string malformed; // empty: every list has topk ascending tiles
};
/// Compares the lists that call.indices and call.counts hold.
SelectionComparison compare_selection(const SelectTiles& call, const Selection& expected);

/// The whole operator in float64, with the means rounded to the input's type.
struct VideoSparseResult {
  std::vector<double> pooled_query, pooled_key, pooled_value;
  Selection selection;           // also where lists are given: then only its out and lse are used
  std::vector<double> fine, out; // [batch, heads, query tokens, head_dim]
  std::vector<double> lse;       // of the fine branch
};
/// counts, indices: lists to attend to in place of the reference's own; for judging a result whose selection differs.
VideoSparseResult video_sparse_attention(const VideoSparseAttention& call, const TensorView* counts = nullptr,
                                         const TensorView* indices = nullptr, int threads = 0);

/// attention + gate * coarse, as AttentionForward's coarse and gate say, for rows that are not padding.
void blend_into(std::vector<double>& out, const AttentionForward& call, const BlockList& pattern);

/// Dense row-major float64 gradients, token order of the call's layout; 0 for padding rows.
struct Gradients {
  std::vector<double> dq;     // [batch, heads, query tokens, head_dim]
  std::vector<double> dk, dv; // [batch, kv heads, key tokens, head_dim]
  /// L2 norms of the terms that dq and dk are sums of: where the terms cancel, a rounding error is small beside these,
  /// not beside the gradients.
  double dq_terms = 0, dk_terms = 0;
};

/// Where the sum over head_dim of dout * out comes from: from the chain rule, or from the call's out as it is.
enum class BackwardDelta { exact, of_out };

/// The gradients of sum(dout * out) + sum(dlse * lse), of attention_forward's out and lse, from the chain rule: lse,
/// dq, dk and dv of the call are not looked at, nor is out. BackwardDelta::of_out: what the operator computes from a
/// rounded out. Where a row's probabilities are all but 0 and 1, its gradients are differences that the rounding of out
/// outweighs.
Gradients attention_backward(const AttentionBackward& call, const Pattern& pattern, int threads = 0,
                             BackwardDelta delta = BackwardDelta::exact);

/// The gradients of sum(dout * video_sparse_attention(q, k, v, gate)) with this selection, from the chain rule; the
/// means' rounding counts as no change. Reads the forward call's inputs and dout alone. counts, indices: the lists that
/// were attended to, in place of the reference's own.
struct VideoSparseGradients {
  std::vector<double> dq, dgate;     // [batch, heads, query tokens, head_dim]; dgate: empty without a gate
  std::vector<double> dk, dv;        // [batch, kv heads, key tokens, head_dim]
  double dq_terms = 0, dk_terms = 0; // as in Gradients, of both branches
};
VideoSparseGradients video_sparse_attention_backward(const VideoSparseAttentionBackward& call,
                                                     const TensorView* counts = nullptr,
                                                     const TensorView* indices = nullptr, int threads = 0);

/// Query-key pairs that the pattern keeps, over all heads and batches. Reads block lists, but not q, k and v, whose
/// pointers may be null.
double valid_pairs(const AttentionForward& call, const Pattern& pattern);

/// 4 * head_dim * valid_pairs: the FLOPs of a forward pass, as benchmarks count them.
double forward_flops(const AttentionForward& call, const Pattern& pattern);

/// The results above, rounded to the types of the call's results and written there: dq, dk, dv and dgate; means;
/// counts, indices, coarse_output and coarse_lse; out, fine and lse. Calls are not checked (Runtime::problem_of does);
/// workspaces are not looked at.
void attention_backward_into(const AttentionBackward& call, const Pattern& pattern, int threads = 0);
void pool_tiles_into(const PoolTiles& call);
void select_tiles_into(const SelectTiles& call, int threads = 0);
void video_sparse_attention_into(const VideoSparseAttention& call, int threads = 0);
void video_sparse_attention_backward_into(const VideoSparseAttentionBackward& call, int threads = 0);

/// Writes counts and indices of the call. Entries of a list behind its count are left as they are.
void list_mask(const ListMask& call);

} // namespace tilewright::reference
