// Video sparse attention and its parts in the emulator, against the float64 reference.
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "support_video_sparse.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

using namespace tilewright;
using namespace tilewright::testing;

namespace {

/// TILEWRIGHT_VIDEO_SPARSE_PROBLEMS=N: how many random problems each family computes.
std::uint64_t problem_count(std::uint64_t without_a_wish) {
  const char* wish = std::getenv("TILEWRIGHT_VIDEO_SPARSE_PROBLEMS");
  return wish == nullptr ? without_a_wish : std::stoull(wish);
}

void check_problems(const Architecture& architecture, std::uint64_t count, std::uint64_t first) {
  std::uint64_t lists = 0, different = 0;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    Runtime runtime(make_emulator({.seed = seed, .architecture = architecture}));
    RandomVideoSparse problem(seed);
    try {
      CHECK(problem.check(runtime, [&](const VideoSparseAttention& call) { runtime.video_sparse_attention(call); }) ==
            "");
    } catch (const Error& error) {
      FAIL_CHECK("seed " << seed << ": " << problem.description() << ": " << std::string(error.what()));
    }
    lists += problem.lists();
    different += problem.different_lists();
  }
  MESSAGE(fmt::format("{}: {} problems, {} lists, {} of them with another order of close scores",
                      to_string(architecture), count, lists, different));
}

/// Vectors of device memory with their views.
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

/// Random means, a part of them equal, and what the kernel makes of them.
std::string select_complaint(const SelectSizes& s, DataType dtype, std::int64_t head_dim, std::uint64_t seed) {
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
  call.coarse_output = out.view;
  call.coarse_lse = lse.view;
  Runtime runtime(make_emulator({.seed = seed, .architecture = {8, 0, 0}}));
  std::vector<std::byte> workspace(runtime.workspace_bytes(call) + 256);
  call.workspace = reinterpret_cast<void*>((reinterpret_cast<std::uintptr_t>(workspace.data()) + 255) / 256 * 256);
  call.workspace_bytes = workspace.size() - 256;
  runtime.select_tiles(call);
  const reference::Selection expected = reference::select_tiles(call);
  const reference::SelectionComparison comparison = reference::compare_selection(call, expected);
  const double error =
      reference::output_error(std::vector<double>(out.values.begin(), out.values.end()), expected.out).relative_l2;
  const double lse_error =
      reference::lse_error(std::vector<double>(lse.values.begin(), lse.values.end()), expected.lse);
  const Tolerances tolerances = Tolerances::of(dtype);
  if (comparison.malformed.empty() && comparison.worst <= 1 && error <= tolerances.relative_l2 && lse_error <= 1e-4)
    return {};
  return fmt::format("{} key tiles, topk {}: {} worst {} error {} LSE {}", s.key_tiles, s.topk, comparison.malformed,
                     comparison.worst, error, lse_error);
}

} // namespace

TEST_CASE("video sparse attention, generic family: sm_80") { check_problems({8, 0, 0}, problem_count(16), 0); }

TEST_CASE("video sparse attention, Hopper family") { check_problems({9, 0, 'a'}, problem_count(16), 100); }

TEST_CASE("selection among 1 to 8192 tiles, strips of scores in shared memory and in the workspace") {
  for (const SelectSizes& sizes : {SelectSizes{1, 1, 1, 1, 1},
                                   {2, 1, 17, 63, 63},
                                   {3, 3, 16, 64, 1},
                                   {1, 1, 20, 129, 64},
                                   {2, 2, 33, 768, 76},
                                   {1, 1, 16, 1920, 192},
                                   {1, 1, 18, 2800, 7},
                                   {1, 1, 5, 8192, 820}})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      CHECK(select_complaint(sizes, dtype, dtype == DataType::bf16 ? 64 : 128,
                             static_cast<std::uint64_t>(sizes.key_tiles)) == "");
}

TEST_CASE("lists out of a mask, and their inverse") {
  std::mt19937_64 generator(7);
  Runtime runtime(make_emulator({.seed = 3}));
  for (const auto& [batch, heads, queries, keys] :
       {std::array<std::int64_t, 4>{1, 1, 1, 1}, {2, 3, 70, 33}, {1, 2, 300, 200}, {1, 1, 64, 130}}) {
    DenseTensor<std::uint8_t> mask(DataType::boolean, {batch, heads, queries, keys}, 0);
    for (std::uint8_t& value : mask.values)
      value = generator() % 5 == 0 ? static_cast<std::uint8_t>(1 + generator() % 3) : std::uint8_t{0};
    DenseTensor<std::int32_t> counts(DataType::int32, {batch, heads, queries}, -7);
    DenseTensor<std::int32_t> indices(DataType::int32, {batch, heads, queries, keys}, -7);
    runtime.list_mask({mask.view, counts.view, indices.view});
    DenseTensor<std::int32_t> key_counts(DataType::int32, {batch, heads, keys}, -7);
    DenseTensor<std::int32_t> offsets(DataType::int32, {batch, heads, keys + 1}, -7);
    DenseTensor<std::int32_t> query_indices(DataType::int32, {batch, heads, queries * keys}, -7);
    runtime.transpose_lists({counts.view, indices.view, key_counts.view, offsets.view, query_indices.view});
    bool right = true;
    for (std::int64_t sequence = 0; sequence < batch * heads; ++sequence) {
      const auto listed = [&](std::int64_t query, std::int64_t key) {
        return mask.values[static_cast<std::size_t>((sequence * queries + query) * keys + key)] != 0;
      };
      for (std::int64_t query = 0; query < queries; ++query) {
        std::int32_t count = 0;
        for (std::int64_t key = 0; key < keys; ++key)
          if (listed(query, key))
            right =
                right && indices.values[static_cast<std::size_t>((sequence * queries + query) * keys + count++)] == key;
        right = right && counts.values[static_cast<std::size_t>(sequence * queries + query)] == count;
      }
      std::int32_t place = 0;
      for (std::int64_t key = 0; key < keys; ++key) {
        right = right && offsets.values[static_cast<std::size_t>(sequence * (keys + 1) + key)] == place;
        const std::int32_t first = place;
        for (std::int64_t query = 0; query < queries; ++query)
          if (listed(query, key))
            right =
                right && query_indices.values[static_cast<std::size_t>(sequence * queries * keys + place++)] == query;
        right = right && key_counts.values[static_cast<std::size_t>(sequence * keys + key)] == place - first;
      }
      right = right && offsets.values[static_cast<std::size_t>(sequence * (keys + 1) + keys)] == place;
    }
    CHECK(right);
  }
}
