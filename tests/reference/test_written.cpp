// The reference's results as they are written to a call's tensors; poison shows what was not written.
#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "support_tensor.hpp"
#include <tilewright/reference.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

double value_of(std::int64_t seed, std::int64_t token, std::int64_t i) {
  return std::sin(static_cast<double>(seed * 37 + token * 5 + i)); // any numbers of order 1
}

/// [1, 6, 1, 4] of fp16, filled or poisoned.
HostTensor six(int seed = -1) {
  HostTensor tensor(DataType::fp16, {1, 6, 1, 4});
  tensor.fill([&](auto, auto token, auto, auto i) {
    return seed < 0 ? std::numeric_limits<double>::quiet_NaN() : value_of(seed, token, i);
  });
  return tensor;
}

double read(const HostTensor& tensor, std::initializer_list<std::int64_t> index) {
  const TensorView& view = tensor.view();
  std::int64_t offset = 0;
  std::size_t axis = 0;
  for (const std::int64_t i : index)
    offset += i * view.strides[axis++];
  if (view.dtype == DataType::int32)
    return static_cast<const std::int32_t*>(view.data)[offset];
  if (view.dtype == DataType::float32)
    return static_cast<double>(static_cast<const float*>(view.data)[offset]);
  return reference::decode(view.dtype, static_cast<const std::uint16_t*>(view.data)[offset]);
}

/// fp16 keeps 2^-11 relative; values are of order 1.
void check_close(const HostTensor& found, const std::vector<double>& expected) {
  std::size_t i = 0;
  for (std::int64_t token = 0; token < 6; ++token)
    for (std::int64_t e = 0; e < 4; ++e, ++i)
      CHECK(std::abs(read(found, {0, token, 0, e}) - expected[i]) < 2e-3);
}

} // namespace

TEST_CASE("gradients are written where the call wants them") {
  HostTensor q = six(1), k = six(2), v = six(3), dout = six(4), dq = six(), dk = six(), dv = six();
  AttentionBackward call{};
  call.q = q.view();
  call.k = k.view();
  call.v = v.view();
  call.dout = dout.view();
  call.dq = dq.view();
  call.dk = dk.view();
  call.dv = dv.view();
  const reference::Gradients expected = reference::attention_backward(call, Dense{});
  reference::attention_backward_into(call, Dense{});
  check_close(dq, expected.dq);
  check_close(dk, expected.dk);
  check_close(dv, expected.dv);
}

TEST_CASE("video sparse attention, its parts and its gradients are written where the calls want them") {
  HostTensor q = six(1), k = six(2), v = six(3), gate = six(5), out = six(), fine = six();
  HostTensor lse(DataType::float32, {1, 1, 6});
  VideoSparseAttention call{.q = q.view(), .k = k.view(), .v = v.view(), .out = out.view()};
  call.gate = gate.view();
  call.fine = fine.view();
  call.lse = lse.view();
  call.canvas = {1, 1, 6};
  call.tile = {1, 1, 2};
  call.topk = 2;
  const reference::VideoSparseResult expected = reference::video_sparse_attention(call);
  reference::video_sparse_attention_into(call);
  check_close(out, expected.out);
  check_close(fine, expected.fine);
  CHECK(read(lse, {0, 0, 5}) == doctest::Approx(expected.lse[5]));

  HostTensor query_means(DataType::fp16, {1, 1, 3, 4}), key_means(DataType::fp16, {1, 1, 3, 4}),
      counts(DataType::int32, {1, 1, 3}), indices(DataType::int32, {1, 1, 3, 2}),
      coarse_lse(DataType::float32, {1, 1, 3});
  reference::pool_tiles_into({q.view(), query_means.view(), Layout::raster, call.canvas, call.tile});
  reference::pool_tiles_into({k.view(), key_means.view(), Layout::raster, call.canvas, call.tile});
  CHECK(read(query_means, {0, 0, 2, 3}) == expected.pooled_query[11]);
  SelectTiles select;
  select.query_means = query_means.view();
  select.key_means = key_means.view();
  select.counts = counts.view();
  select.indices = indices.view();
  select.coarse_lse = coarse_lse.view();
  reference::select_tiles_into(select);
  for (std::int64_t tile = 0; tile < 3; ++tile) {
    CHECK(read(counts, {0, 0, tile}) == 2);
    CHECK(read(coarse_lse, {0, 0, tile}) == doctest::Approx(expected.selection.lse[static_cast<std::size_t>(tile)]));
    for (std::int64_t entry = 0; entry < 2; ++entry)
      CHECK(read(indices, {0, 0, tile, entry}) ==
            expected.selection.indices[static_cast<std::size_t>(tile * 2 + entry)]);
  }

  HostTensor dout = six(4), dq = six(), dk = six(), dv = six(), dgate = six();
  VideoSparseAttentionBackward backward{
      .forward = call, .dout = dout.view(), .dq = dq.view(), .dk = dk.view(), .dv = dv.view(), .dgate = dgate.view()};
  const auto gradients = reference::video_sparse_attention_backward(backward);
  reference::video_sparse_attention_backward_into(backward);
  check_close(dq, gradients.dq);
  check_close(dk, gradients.dk);
  check_close(dv, gradients.dv);
  check_close(dgate, gradients.dgate);
}

TEST_CASE("lists out of a mask with strides of its own") {
  std::vector<std::uint8_t> memory{0, 9, 1, 7, 7, 7, 7, 7, 7, 9, 0, 9};
  // Rows of three keys, nine bytes apart: (0, 9, 1) and (9, 0, 9).
  TensorView mask = TensorView::contiguous(memory.data(), DataType::boolean, {1, 1, 2, 3});
  mask.strides[2] = 9;
  HostTensor counts(DataType::int32, {1, 1, 2}), indices(DataType::int32, {1, 1, 2, 3});
  reference::list_mask({mask, counts.view(), indices.view()});
  CHECK(read(counts, {0, 0, 0}) == 2);
  CHECK(read(indices, {0, 0, 0, 0}) == 1);
  CHECK(read(indices, {0, 0, 0, 1}) == 2);
  CHECK(read(counts, {0, 0, 1}) == 2);
  CHECK(read(indices, {0, 0, 1, 0}) == 0);
  CHECK(read(indices, {0, 0, 1, 1}) == 2);
}
