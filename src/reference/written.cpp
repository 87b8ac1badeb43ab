// The reference's results, written to the tensors of the calls.
#include <tilewright/reference.hpp>

#include <algorithm>

#include "reference/tensor.hpp"

namespace tilewright::reference {
namespace {

template <typename Value, typename Source> void write_dense(const TensorView& view, const std::vector<Source>& values) {
  std::transform(values.begin(), values.end(), static_cast<Value*>(view.data),
                 [](Source value) { return static_cast<Value>(value); });
}

} // namespace

void attention_backward_into(const AttentionBackward& call, const Pattern& pattern, int threads) {
  const Gradients gradients = attention_backward(call, pattern, threads);
  write_tensor(call.dq, call.layout, gradients.dq);
  write_tensor(call.dk, call.layout, gradients.dk);
  write_tensor(call.dv, call.layout, gradients.dv);
}

void pool_tiles_into(const PoolTiles& call) { write_tensor(call.means, Layout::tiled, pool_tiles(call)); }

void select_tiles_into(const SelectTiles& call, int threads) {
  const Selection selection = select_tiles(call, threads);
  const auto& lists = call.indices.extents;
  std::fill_n(static_cast<std::int32_t*>(call.counts.data), lists[0] * lists[1] * lists[2],
              static_cast<std::int32_t>(lists[3]));
  write_dense<std::int32_t>(call.indices, selection.indices);
  if (call.coarse_output)
    write_dense<float>(*call.coarse_output, selection.out);
  if (call.coarse_lse)
    write_dense<float>(*call.coarse_lse, selection.lse);
}

void video_sparse_attention_into(const VideoSparseAttention& call, int threads) {
  const VideoSparseResult result = video_sparse_attention(call, nullptr, nullptr, threads);
  write_tensor(call.out, call.layout, result.out);
  if (call.fine)
    write_tensor(*call.fine, call.layout, result.fine);
  if (call.lse)
    write_lse(*call.lse, result.lse);
}

void video_sparse_attention_backward_into(const VideoSparseAttentionBackward& call, int threads) {
  const VideoSparseGradients gradients = video_sparse_attention_backward(call, nullptr, nullptr, threads);
  const Layout layout = call.forward.layout;
  write_tensor(call.dq, layout, gradients.dq);
  write_tensor(call.dk, layout, gradients.dk);
  write_tensor(call.dv, layout, gradients.dv);
  if (call.dgate)
    write_tensor(*call.dgate, layout, gradients.dgate);
}

void list_mask(const ListMask& call) {
  const auto &extents = call.mask.extents, &strides = call.mask.strides;
  const auto* mask = static_cast<const std::uint8_t*>(call.mask.data);
  auto* counts = static_cast<std::int32_t*>(call.counts.data);
  auto* indices = static_cast<std::int32_t*>(call.indices.data);
  for (std::int64_t row = 0; row < extents[0] * extents[1] * extents[2]; ++row) {
    const std::int64_t batch = row / extents[2] / extents[1], head = row / extents[2] % extents[1];
    const auto* of_row = mask + batch * strides[0] + head * strides[1] + row % extents[2] * strides[2];
    std::int32_t count = 0;
    for (std::int64_t key = 0; key < extents[3]; ++key)
      if (of_row[key] != 0)
        indices[row * extents[3] + count++] = static_cast<std::int32_t>(key);
    counts[row] = count;
  }
}

} // namespace tilewright::reference
