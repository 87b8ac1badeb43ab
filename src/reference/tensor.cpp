#include "reference/tensor.hpp"

#include "reference/convert.hpp"

namespace tilewright::reference {
namespace {

/// Calls visit(tensor, batch, head, token, element, index) for every element in the dense order.
template <typename Visit> void for_each_element(const TensorView& view, Layout layout, Visit visit) {
  const AttentionTensor tensor(view, layout);
  std::size_t index = 0;
  for (std::int64_t b = 0; b < tensor.batch; ++b)
    for (std::int64_t head = 0; head < tensor.heads; ++head)
      for (std::int64_t token = 0; token < tensor.tokens; ++token)
        for (std::int64_t element = 0; element < tensor.head_dim; ++element)
          visit(tensor, b, head, token, element, index++);
}

template <typename Visit> void for_each_lse(const TensorView& view, Visit visit) {
  std::size_t index = 0;
  for (std::int64_t b = 0; b < view.extents[0]; ++b)
    for (std::int64_t head = 0; head < view.extents[1]; ++head)
      for (std::int64_t query = 0; query < view.extents[2]; ++query)
        visit(static_cast<float*>(view.data)[b * view.strides[0] + head * view.strides[1] + query * view.strides[2]],
              index++);
}

} // namespace

AttentionTensor::AttentionTensor(const TensorView& view, Layout layout) noexcept
    : data(static_cast<std::uint16_t*>(view.data)), dtype(view.dtype) {
  const std::size_t token_axis = layout == Layout::raster ? 1 : 2, head_axis = 3 - token_axis;
  batch = view.extents[0];
  heads = view.extents[head_axis];
  tokens = view.extents[token_axis];
  head_dim = view.extents[3];
  batch_stride = view.strides[0];
  head_stride = view.strides[head_axis];
  token_stride = view.strides[token_axis];
  element_stride = view.strides[3];
}

double AttentionTensor::read(std::int64_t b, std::int64_t head, std::int64_t token,
                             std::int64_t element) const noexcept {
  return decode(dtype, data[b * batch_stride + head * head_stride + token * token_stride + element * element_stride]);
}

void AttentionTensor::write(std::int64_t b, std::int64_t head, std::int64_t token, std::int64_t element,
                            double value) const noexcept {
  data[b * batch_stride + head * head_stride + token * token_stride + element * element_stride] = encode(dtype, value);
}

std::vector<double> read_tensor(const TensorView& view, Layout layout) {
  const AttentionTensor tensor(view, layout);
  std::vector<double> values(static_cast<std::size_t>(tensor.batch * tensor.heads * tensor.tokens * tensor.head_dim));
  for_each_element(view, layout,
                   [&](const AttentionTensor& source, auto b, auto head, auto token, auto element, std::size_t index) {
                     values[index] = source.read(b, head, token, element);
                   });
  return values;
}

void write_tensor(const TensorView& view, Layout layout, std::span<const double> values) {
  for_each_element(view, layout,
                   [&](const AttentionTensor& target, auto b, auto head, auto token, auto element, std::size_t index) {
                     target.write(b, head, token, element, values[index]);
                   });
}

std::vector<double> read_lse(const TensorView& view) {
  std::vector<double> values(static_cast<std::size_t>(view.extents[0] * view.extents[1] * view.extents[2]));
  for_each_lse(view, [&](float& value, std::size_t index) { values[index] = value; });
  return values;
}

void write_lse(const TensorView& view, std::span<const double> values) {
  for_each_lse(view, [&](float& value, std::size_t index) { value = static_cast<float>(values[index]); });
}

} // namespace tilewright::reference
