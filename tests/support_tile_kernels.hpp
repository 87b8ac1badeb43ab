// Calls of the kernels that work on tiles as a whole, checked against the float64 reference or plain loops.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <random>
#include <string>
#include <vector>

#include <fmt/format.h>

#include "reference/compare.hpp"
#include "reference/convert.hpp"
#include "support_random_problem.hpp"
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>
#include <tilewright/video_sparse.hpp>

namespace tilewright::testing {

/// A contiguous tensor with its memory.
template <typename Number> struct DenseTensor {
  std::vector<Number> values;
  TensorView view;

  DenseTensor(DataType dtype, std::initializer_list<std::int64_t> extents, Number fill) {
    std::size_t count = 1;
    for (const std::int64_t extent : extents)
      count *= static_cast<std::size_t>(extent);
    values.assign(count, fill);
    view = TensorView::contiguous(values.data(), dtype, extents);
  }
};

struct SelectSizes {
  std::int64_t heads, kv_heads, query_tiles, key_tiles, topk;
};

/// How a selection is asked for. key_sizes: valid tokens of the key tiles; empty: all have some.
struct SelectForm {
  DataType dtype = DataType::bf16;
  std::int64_t head_dim = 64;
  std::vector<std::int32_t> key_sizes = {};
  bool coarse = true; // its output and LSE, which are optional
};

/// Random means, a part of them equal, and what the kernel makes of them. Empty where all is right.
inline std::string select_complaint(Runtime& runtime, const SelectSizes& s, const SelectForm& form,
                                    std::uint64_t seed) {
  const DataType dtype = form.dtype;
  const std::int64_t head_dim = form.head_dim;
  std::mt19937_64 generator(seed);
  std::normal_distribution<double> normal;
  DenseTensor<std::uint16_t> q(dtype, {1, s.heads, s.query_tiles, head_dim}, 0),
      k(dtype, {1, s.kv_heads, s.key_tiles, head_dim}, 0), v(dtype, {1, s.kv_heads, s.key_tiles, head_dim}, 0);
  for (DenseTensor<std::uint16_t>* means : {&q, &k, &v})
    for (std::uint16_t& value : means->values)
      value = reference::encode(dtype, normal(generator));
  for (std::int64_t tile = 0; tile < s.key_tiles; ++tile) // ties
    if (generator() % 4 == 0)
      std::copy_n(k.values.begin(), head_dim, k.values.begin() + tile * head_dim);
  DenseTensor<std::int32_t> counts(DataType::int32, {1, s.heads, s.query_tiles}, -1);
  DenseTensor<std::int32_t> indices(DataType::int32, {1, s.heads, s.query_tiles, s.topk}, -1);
  DenseTensor<float> out(DataType::float32, {1, s.heads, s.query_tiles, head_dim}, NAN);
  DenseTensor<float> lse(DataType::float32, {1, s.heads, s.query_tiles}, NAN);
  SelectTiles call;
  call.query_means = q.view;
  call.key_means = k.view;
  call.value_means = v.view;
  call.counts = counts.view;
  call.indices = indices.view;
  if (form.coarse) {
    call.coarse_output = out.view;
    call.coarse_lse = lse.view;
  }
  std::vector<std::int32_t> key_sizes = form.key_sizes;
  if (!key_sizes.empty())
    call.key_sizes = TensorView::contiguous(key_sizes.data(), DataType::int32, {s.key_tiles});
  std::vector<std::byte> workspace(runtime.workspace_bytes(call) + 256);
  call.workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 255) / 256 * 256);
  call.workspace_bytes = workspace.size() - 256;
  runtime.select_tiles(call);
  const reference::Selection expected = reference::select_tiles(call);
  const reference::SelectionComparison comparison = reference::compare_selection(call, expected);
  const auto doubles = [](const std::vector<float>& floats) {
    return std::vector<double>(floats.begin(), floats.end());
  };
  const double error = form.coarse ? reference::output_error(doubles(out.values), expected.out).relative_l2 : 0;
  const double lse_error = form.coarse ? reference::lse_error(doubles(lse.values), expected.lse) : 0;
  const Tolerances tolerances = Tolerances::of(dtype);
  if (comparison.malformed.empty() && comparison.worst <= 1 && error <= tolerances.relative_l2 && lse_error <= 1e-4)
    return {};
  return fmt::format("{} key tiles, topk {}: {} worst {} error {} LSE {}", s.key_tiles, s.topk, comparison.malformed,
                     comparison.worst, error, lse_error);
}

struct MaskSizes {
  std::int64_t batch, heads, queries, keys;
};

/// Lists made out of a random mask, and their inverse. Empty where all is right.
inline std::string list_complaint(Runtime& runtime, const MaskSizes& sizes, std::uint64_t seed) {
  const std::int64_t batch = sizes.batch, heads = sizes.heads, queries = sizes.queries, keys = sizes.keys;
  std::mt19937_64 generator(seed);
  DenseTensor<std::uint8_t> mask(DataType::boolean, {batch, heads, queries, keys}, 0);
  for (std::uint8_t& value : mask.values)
    value = generator() % 5 == 0 ? static_cast<std::uint8_t>(1 + generator() % 3) : std::uint8_t{0};
  constexpr std::int32_t untouched = -7;
  DenseTensor<std::int32_t> counts(DataType::int32, {batch, heads, queries}, untouched);
  DenseTensor<std::int32_t> indices(DataType::int32, {batch, heads, queries, keys}, untouched);
  runtime.list_mask({mask.view, counts.view, indices.view});
  const std::vector<std::int32_t> listed_keys = indices.values;
  for (std::int32_t& entry : indices.values) // behind a list's count may be anything
    if (entry == untouched)
      entry = static_cast<std::int32_t>(keys - 1);
  DenseTensor<std::int32_t> key_counts(DataType::int32, {batch, heads, keys}, untouched);
  DenseTensor<std::int32_t> offsets(DataType::int32, {batch, heads, keys + 1}, untouched);
  DenseTensor<std::int32_t> query_indices(DataType::int32, {batch, heads, queries * keys}, untouched);
  runtime.transpose_lists({counts.view, indices.view, key_counts.view, offsets.view, query_indices.view});
  indices.values = listed_keys;

  std::string wrong;
  const auto compare = [&](const char* name, const DenseTensor<std::int32_t>& tensor, std::int64_t at,
                           std::int64_t expected) {
    const std::int32_t got = tensor.values[static_cast<std::size_t>(at)];
    if (got != expected && wrong.empty())
      wrong = fmt::format("{}[{}] is {}, expected {}, of a mask [{}, {}, {}, {}]", name, at, got, expected, batch,
                          heads, queries, keys);
  };
  for (std::int64_t sequence = 0; sequence < batch * heads; ++sequence) {
    const auto listed = [&](std::int64_t query, std::int64_t key) {
      return mask.values[static_cast<std::size_t>((sequence * queries + query) * keys + key)] != 0;
    };
    for (std::int64_t query = 0; query < queries; ++query) {
      const std::int64_t first = (sequence * queries + query) * keys;
      std::int64_t count = 0;
      for (std::int64_t key = 0; key < keys; ++key)
        if (listed(query, key))
          compare("indices", indices, first + count++, key);
      compare("counts", counts, sequence * queries + query, count);
      for (; count < keys; ++count) // what is behind a list's count nobody wrote
        compare("indices", indices, first + count, untouched);
    }
    std::int64_t place = 0;
    for (std::int64_t key = 0; key < keys; ++key) {
      compare("offsets", offsets, sequence * (keys + 1) + key, place);
      const std::int64_t first = place;
      for (std::int64_t query = 0; query < queries; ++query)
        if (listed(query, key))
          compare("query_indices", query_indices, sequence * queries * keys + place++, query);
      compare("key_counts", key_counts, sequence * keys + key, place - first);
    }
    compare("offsets", offsets, sequence * (keys + 1) + keys, place);
    for (; place < queries * keys; ++place)
      compare("query_indices", query_indices, sequence * queries * keys + place, untouched);
  }
  return wrong;
}

} // namespace tilewright::testing
