// Video sparse attention on a GPU against the float64 reference. TILEWRIGHT_GPU_PROBLEMS=N sets how many random
// problems each kernel family computes.
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "device_problem.hpp"
#include "device_tensors.hpp"
#include "graph_api.hpp"
#include "problem_count.hpp"
#include "support_video_sparse.hpp"

using namespace tilewright;
using namespace tilewright::testing;

namespace {

std::vector<std::byte> output_bytes(RandomVideoSparse& problem) {
  std::vector<std::byte> bytes;
  for (HostTensor& tensor : problem.tensors())
    bytes.insert(bytes.end(), tensor.allocation(), tensor.allocation() + tensor.allocation_bytes());
  return bytes;
}

/// Twice, from poisoned outputs each time: right, and the same to the last bit.
void check_problems(Family family, std::uint64_t from_seed) {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  if (family == Family::sm90 && device->description().architecture.number() != 90) {
    MESSAGE("SKIP: family sm90 needs sm_90");
    return;
  }
  VideoSparseLimits limits;
  limits.max_tiles = 60;
  limits.max_tokens = 4000;
  limits.max_flops = 6e8;
  Runtime runtime(make_cuda_executor(device), {.family = family});
  std::uint64_t lists = 0, different = 0;
  for (std::uint64_t seed = from_seed; seed < from_seed + problem_count(300); ++seed) {
    RandomVideoSparse problem(seed, limits);
    bool same = true;
    try {
      const std::string complaint = problem.check(runtime, [&](const VideoSparseAttention&) {
        DeviceTensors there(problem.tensors(), device);
        const VideoSparseAttention call = problem.relocated([&](void* host) { return there.at(host); });
        there.upload();
        const std::vector<std::byte> before = output_bytes(problem);
        runtime.video_sparse_attention(call);
        there.download();
        const std::vector<std::byte> first = output_bytes(problem);
        runtime.video_sparse_attention(call);
        there.download();
        same = output_bytes(problem) == first && first != before;
      });
      CHECK(complaint == "");
      if (!same)
        FAIL_CHECK("two runs differ: " << problem.description());
    } catch (const Error& error) {
      FAIL_CHECK("seed " << seed << ": " << problem.description() << ": " << std::string(error.what()));
      if (error.code() == ErrorCode::driver_error)
        return; // a context that has met an illegal access computes nothing more
    }
    lists += problem.lists();
    different += problem.different_lists();
  }
  MESSAGE(to_string(family) << " on " << device->description().name << ": " << problem_count(300) << " problems, "
                            << lists << " lists, " << different << " of them with another order of close scores");
}

} // namespace

TEST_CASE("video sparse attention: random problems, generic family") { check_problems(Family::sm80, first_seed()); }

TEST_CASE("video sparse attention: random problems, Hopper family") {
  check_problems(Family::sm90, 10000 + first_seed());
}

TEST_CASE("selection among up to 8192 tiles, and the lists' inverse") {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device));
  for (const std::int64_t tiles : {64, 777, 1920, 3000, 8192}) {
    const std::int64_t heads = tiles > 4000 ? 1 : 2, queries = tiles, topk = std::max<std::int64_t>(tiles / 10, 1);
    std::list<HostTensor> tensors;
    using Extents = std::initializer_list<std::int64_t>;
    std::mt19937_64 generator(static_cast<std::uint64_t>(tiles));
    std::normal_distribution<double> normal;
    SelectTiles call;
    const auto add = [&](DataType dtype, Extents extents) -> HostTensor& {
      return tensors.emplace_back(dtype, extents);
    };
    HostTensor &q = add(DataType::bf16, {1, heads, queries, 64}), &k = add(DataType::bf16, {1, heads, tiles, 64}),
               &v = add(DataType::bf16, {1, heads, tiles, 64});
    for (HostTensor* means : {&q, &k, &v})
      means->fill([&](auto...) { return std::optional(normal(generator)); });
    HostTensor &counts = add(DataType::int32, {1, heads, queries}),
               &indices = add(DataType::int32, {1, heads, queries, topk}),
               &coarse = add(DataType::float32, {1, heads, queries, 64}),
               &lse = add(DataType::float32, {1, heads, queries});
    HostTensor &key_counts = add(DataType::int32, {1, heads, tiles}),
               &offsets = add(DataType::int32, {1, heads, tiles + 1}),
               &query_indices = add(DataType::int32, {1, heads, queries * topk});
    call.query_means = q.view();
    call.key_means = k.view();
    call.value_means = v.view();
    call.counts = counts.view();
    call.indices = indices.view();
    call.coarse_output = coarse.view();
    call.coarse_lse = lse.view();
    DeviceTensors there(tensors, device);
    there.upload();
    cuda::DeviceMemory workspace(device, runtime.workspace_bytes(call) + 256);
    SelectTiles placed = call;
    const auto place = [&](TensorView& view) { view.data = there.at(view.data); };
    place(placed.query_means);
    place(placed.key_means);
    place(*placed.value_means);
    place(placed.counts);
    place(placed.indices);
    place(*placed.coarse_output);
    place(*placed.coarse_lse);
    placed.workspace = workspace.data();
    placed.workspace_bytes = workspace.size();
    runtime.select_tiles(placed);
    TransposeLists transpose{placed.counts, placed.indices, key_counts.view(), offsets.view(), query_indices.view()};
    place(transpose.key_counts);
    place(transpose.offsets);
    place(transpose.query_indices);
    runtime.transpose_lists(transpose);
    there.download();
    // A sample of the query tiles against the reference: it takes long.
    const std::int64_t sample = std::min<std::int64_t>(queries, 40);
    for (std::int64_t head = 0; head < heads; ++head) {
      SelectTiles part = call;
      const auto cut = [&](TensorView& view, std::int64_t rows, std::int64_t width) {
        view =
            TensorView::contiguous(static_cast<std::byte*>(view.data) +
                                       static_cast<std::size_t>(head * view.extents[2] * width) * size_of(view.dtype),
                                   view.dtype, {1, 1, rows, width});
      };
      cut(part.query_means, sample, 64);
      cut(part.key_means, tiles, 64);
      cut(*part.value_means, tiles, 64);
      cut(part.indices, sample, topk);
      part.counts.data = static_cast<std::int32_t*>(counts.view().data) + head * queries;
      const reference::Selection expected = reference::select_tiles(part);
      const reference::SelectionComparison comparison = reference::compare_selection(part, expected);
      CHECK(comparison.malformed == "");
      CHECK(comparison.worst <= 1);
      MESSAGE(tiles << " tiles: " << comparison.different << " of " << comparison.lists << " lists differ");
      const auto* out = static_cast<const float*>(coarse.view().data) + head * queries * 64;
      CHECK(reference::output_error(std::vector<double>(out, out + sample * 64), expected.out).relative_l2 < 6e-3);
    }
    // Every entry of every list has its place in the inverse, in order.
    const auto* list = static_cast<const std::int32_t*>(indices.view().data);
    const auto* starts = static_cast<const std::int32_t*>(offsets.view().data);
    const auto* inverse = static_cast<const std::int32_t*>(query_indices.view().data);
    bool right = true;
    for (std::int64_t head = 0; head < heads; ++head) {
      std::vector<std::int32_t> next(starts + head * (tiles + 1), starts + (head + 1) * (tiles + 1));
      for (std::int64_t query = 0; query < queries; ++query)
        for (std::int64_t i = 0; i < topk; ++i) {
          const std::int32_t key = list[(head * queries + query) * topk + i];
          right = right && inverse[head * queries * topk + next[static_cast<std::size_t>(key)]++] == query;
        }
      for (std::int64_t key = 0; key < tiles; ++key)
        right = right && next[static_cast<std::size_t>(key)] == starts[head * (tiles + 1) + key + 1];
    }
    CHECK(right);
  }
}

TEST_CASE("a prepared video sparse call is captured in a graph") {
  const auto device = gpu_or_skip();
  if (device == nullptr)
    return;
  Runtime runtime(make_cuda_executor(device));
  RandomVideoSparse problem(3);
  runtime.prepare(Runtime::problem_of(problem.call()));
  const cuda::ContextGuard guard(*device);
  const GraphApi api(device->api());
  CHECK(problem.check(runtime, [&](const VideoSparseAttention&) {
    DeviceTensors there(problem.tensors(), device);
    there.upload();
    const VideoSparseAttention call = problem.relocated([&](void* host) { return there.at(host); });
    void *stream = nullptr, *graph = nullptr, *executable = nullptr;
    api.call("cuStreamCreate", &stream, 1U);
    api.call("cuStreamBeginCapture_v2", stream, 1);
    runtime.video_sparse_attention(call, stream);
    api.call("cuStreamEndCapture", stream, &graph);
    api.call("cuGraphInstantiateWithFlags", &executable, graph, 0ULL);
    for (int replay = 0; replay < 2; ++replay)
      api.call("cuGraphLaunch", executable, stream);
    api.call("cuStreamSynchronize", stream);
    there.download();
    api.call("cuGraphExecDestroy", executable);
    api.call("cuGraphDestroy", graph);
    api.call("cuStreamDestroy_v2", stream);
  }) == "");
}
