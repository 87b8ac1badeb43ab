#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "operators/tensor_maps.hpp"
#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::operators;

namespace {

constexpr std::int32_t element_bytes = 2;

std::byte memory[64]; // addresses only: nothing is read

Spec spec_of(const std::string& line) {
  return schedule::default_spec(parse_problem("attention_forward:" + line), {9, 0, 0}, Family::sm90);
}

TokenGrid grid_of(const Extent3& canvas, const Extent3& tile) {
  const auto tiles = [](int extent, int size) { return (extent + size - 1) / size; };
  return {canvas.t, canvas.h, canvas.w, tiles(canvas.t, tile.t), tiles(canvas.h, tile.h), tiles(canvas.w, tile.w)};
}

AttentionParameters parameters(const Strides& strides, const TokenGrid& grid, std::int32_t heads) {
  AttentionParameters p{};
  p.query = p.key = p.value = memory;
  p.output = memory;
  p.query_strides = p.key_strides = p.value_strides = p.output_strides = strides;
  p.query_grid = p.key_grid = grid;
  p.heads = heads;
  p.heads_per_kv_head = 1;
  return p;
}

/// The address that the copy engine computes for an element, in bytes from the start of the memory.
std::int64_t address(const TensorMapRequest& map, const std::int64_t (&at)[5]) {
  std::int64_t bytes = static_cast<std::byte*>(map.data) - memory + at[0] * element_bytes;
  for (std::size_t i = 1; i < 5; ++i) {
    CHECK(at[i] >= 0);
    CHECK(at[i] < static_cast<std::int64_t>(map.extents[i]));
    CHECK(map.strides_bytes[i] % 16 == 0);
    CHECK(map.strides_bytes[i] > 0);
    bytes += at[i] * static_cast<std::int64_t>(map.strides_bytes[i]);
  }
  CHECK(at[0] < static_cast<std::int64_t>(map.extents[0]));
  return bytes;
}

void check_canvas(const Strides& s, const Extent3& canvas, std::int32_t batch, std::int32_t heads) {
  const Spec spec = spec_of("pattern=sliding_tile,text=0,edges=clipped");
  const AttentionParameters p = parameters(s, grid_of(canvas, spec.problem.tile), heads);
  const MappedTensors maps = map_tensors(spec, p, batch);
  const HeadPlacement& place = maps.query_heads;
  for (std::int64_t b = 0; b < batch; ++b)
    for (std::int64_t head = 0; head < heads; ++head)
      for (const Extent3& token :
           {Extent3{0, 0, 0}, Extent3{1, 2, 3}, Extent3{canvas.t - 1, canvas.h - 1, canvas.w - 1}}) {
        const std::int64_t number = (std::int64_t{token.t} * canvas.h + token.h) * canvas.w + token.w;
        CHECK(address(maps.video.query, {head * place.columns_per_head + 5, token.w, token.h, token.t,
                                         b * place.outer_per_batch + head * place.outer_per_head}) ==
              (b * s.batch + head * s.head + number * s.token + 5) * element_bytes);
      }
  CHECK(std::vector<std::uint32_t>(maps.video.query.box, maps.video.query.box + 5) ==
        std::vector<std::uint32_t>{64, 8, 8, 1, 1});
  CHECK(maps.video.query.extents[1] == static_cast<std::uint64_t>(canvas.w)); // what lies behind is not read as canvas
  CHECK_FALSE(maps.text.has_value());
}

} // namespace

TEST_CASE("a canvas map reaches every element, however heads and batches lie in memory") {
  const Extent3 canvas{7, 13, 18};
  const std::int64_t tokens = canvas.volume(), heads = 3, batch = 2;
  check_canvas({tokens * heads * 128, 128, heads * 128}, canvas, 2, 3);  // [batch, tokens, heads, head_dim]
  check_canvas({tokens * heads * 384, 128, heads * 384}, canvas, 2, 3);  // q of a packed q, k, v
  check_canvas({tokens * 424 + 16, 136, 424}, canvas, 2, 3);             // gaps everywhere
  check_canvas({heads * tokens * 128, tokens * 128, 128}, canvas, 2, 3); // [batch, heads, tokens, head_dim]
  check_canvas({tokens * 128, batch * tokens * 128, 128}, canvas, 2, 3); // [heads, batch, tokens, head_dim]
  check_canvas({0, tokens * 128 + 8, 128}, canvas, 1, 3);                // one batch: heads anywhere
  check_canvas({tokens * 128 + 64, 0, 128}, canvas, 2, 1);               // one head
}

TEST_CASE("strides that fit no map are refused by name") {
  const Spec spec = spec_of("pattern=sliding_tile,text=0,edges=clipped");
  AttentionParameters p = parameters({7 * 13 * 18 * 384, 128, 384}, grid_of({7, 13, 18}, {6, 8, 8}), 3);
  p.value_strides = {1 << 20, 1 << 18, 128};
  CHECK_THROWS_WITH_AS(map_tensors(spec, p, 2),
                       doctest::Contains("v has 2 batches with stride 1048576, 3 heads with stride 262144 and tokens"),
                       Error);
  p.value_strides.batch = 3 << 18;
  CHECK_NOTHROW(map_tensors(spec, p, 2));
}

TEST_CASE("linear maps take any strides: the tiled layout, dense, and the text behind the video") {
  const Extent3 canvas{7, 13, 18};
  const Strides odd{1 << 22, 1 << 20, 160};
  SUBCASE("tiled, with padded tiles") {
    const Spec spec = spec_of("pattern=sliding_tile,text=1,edges=clipped,layout=tiled");
    AttentionParameters p = parameters(odd, grid_of(canvas, {6, 8, 8}), 3);
    p.text_rows = 40;
    p.text_length = 33;
    const MappedTensors maps = map_tensors(spec, p, 2);
    const std::int64_t video = 2 * 2 * 3 * 384;
    CHECK(address(maps.video.key, {7, video - 1, 2, 1, 0}) ==
          (odd.batch + 2 * odd.head + (video - 1) * odd.token + 7) * element_bytes);
    REQUIRE(maps.text);
    CHECK(address(maps.text->key, {7, 32, 2, 1, 0}) ==
          (odd.batch + 2 * odd.head + (video + 32) * odd.token + 7) * element_bytes);
    CHECK(maps.text->key.extents[1] == 33);    // keys behind the text's length are zeros
    CHECK(maps.text->output.extents[1] == 40); // padding rows are written
    CHECK(maps.text->query.box[1] == 64);
  }
  SUBCASE("raster text begins behind the canvas") {
    const Spec spec = spec_of("pattern=sliding_tile,text=1,edges=clipped");
    AttentionParameters p = parameters({1 << 22, 128, 384}, grid_of(canvas, {6, 8, 8}), 3);
    p.text_rows = 40;
    p.text_length = 0; // no text in this call: maps need an extent all the same
    const MappedTensors maps = map_tensors(spec, p, 1);
    REQUIRE(maps.text);
    CHECK(address(maps.text->query, {0, 0, 1, 0, 0}) == (canvas.volume() * 384 + 128) * element_bytes);
    CHECK(maps.text->query.extents[1] == 1);
  }
  SUBCASE("dense") {
    const Spec spec = spec_of("pattern=dense,edges=clipped");
    AttentionParameters p = parameters(odd, grid_of({1, 1, 1000}, {1, 1, 192}), 3);
    p.key_grid = grid_of({1, 1, 777}, {1, 1, 64});
    const MappedTensors maps = map_tensors(spec, p, 2);
    CHECK(maps.video.query.extents[1] == 1000);
    CHECK(maps.video.key.extents[1] == 777);
    CHECK(address(maps.video.output, {64, 999, 2, 1, 0}) ==
          (odd.batch + 2 * odd.head + 999 * odd.token + 64) * element_bytes);
  }
}

TEST_CASE("boxes are the key block's rows, shared out over the cluster; grouped heads have maps of their own") {
  Spec spec = spec_of("pattern=sliding_tile,text=0,edges=full");
  spec.schedule.cluster = 2;
  AttentionParameters p = parameters({0, 128, 6 * 128}, grid_of({6, 8, 8}, {6, 8, 8}), 6);
  p.heads_per_kv_head = 3;
  p.key_strides = p.value_strides = {0, 128, 2 * 128};
  const MappedTensors maps = map_tensors(spec, p, 1);
  CHECK(std::vector<std::uint32_t>(maps.video.key.box, maps.video.key.box + 5) ==
        std::vector<std::uint32_t>{64, 8, 4, 1, 1});
  CHECK(maps.video.key.extents[0] == 2 * 128);
  CHECK(maps.video.query.extents[0] == 6 * 128);
}

TEST_CASE("work is dealt out in whole items, and a text item counts as the rounds that it takes") {
  const TokenGrid grid = grid_of({30, 48, 80}, {6, 8, 8}); // 5 x 6 x 10 tiles
  SUBCASE("three consumers on one list, clusters of two") {
    Spec spec = spec_of("pattern=sliding_tile,text=1,edges=full");
    spec.schedule.cluster = 2;
    AttentionParameters p = parameters({}, grid, 24);
    p.text_rows = 500; // three blocks of 192: two items
    const DealtWork dealt = deal_work(spec, p, 2, 27);
    CHECK(dealt.work.heads == 48);
    CHECK(dealt.work.video_blocks == 600);
    CHECK(dealt.work.video_items == 300);
    CHECK(dealt.work.text_items == 2);
    CHECK(dealt.work.text_rounds == 11); // 300 tiles against 27
    CHECK(dealt.query_blocks == 604);
    CHECK(dealt.items == 48 * 302);
    const LaunchShape shape = hopper_launch_shape(spec, dealt, 132);
    CHECK(shape.grid.x == 132);
    CHECK(shape.cluster.x == 2);
    CHECK(shape.block.x == 512);
    CHECK(hopper_launch_shape(spec, deal_work(spec, parameters({}, grid_of({6, 8, 8}, {6, 8, 8}), 1), 1, 1), 132)
              .grid.x == 2);
  }
  SUBCASE("merged lists: an item has a query block for each consumer") {
    Spec spec = spec_of("pattern=block_list,edges=full");
    spec.schedule.consumers = 3;
    const DealtWork dealt = deal_work(spec, parameters({}, grid_of({16, 48, 64}, {4, 4, 4}), 12), 1, 1);
    CHECK(dealt.work.video_blocks == 768);
    CHECK(dealt.work.video_items == 256);
    CHECK(dealt.query_blocks == 768);
  }
  SUBCASE("dense, clusters of two: an odd block out is rounded up") {
    Spec spec = spec_of("pattern=dense,edges=clipped");
    spec.schedule.cluster = 2;
    const DealtWork dealt = deal_work(spec, parameters({}, grid_of({1, 1, 500}, {1, 1, 192}), 4), 1, 1);
    CHECK(dealt.query_blocks == 4);
    CHECK(dealt.items == 8);
  }
}
