#include <doctest/doctest.h>

#include <limits>

#include <tilewright/error.hpp>
#include <tilewright/types.hpp>

using namespace tilewright;

TEST_CASE("extents have one text form that parses back") {
  CHECK(to_string(Extent3{6, 8, 8}) == "6x8x8");
  CHECK(parse_extent3("6x8x8") == Extent3{6, 8, 8});
  CHECK(parse_extent3("1x1x2147483647").w == std::numeric_limits<std::int32_t>::max());
  for (const char* bad : {"", "6", "6x8", "6x8x8x8", "6x8x", "0x8x8", "-1x8x8", "6X8X8", "6x8x8 ", "1x1x2147483648"})
    CHECK_THROWS_AS(parse_extent3(bad), Error);
}

TEST_CASE("architectures keep their suffix") {
  CHECK(parse_architecture("sm_80") == Architecture{8, 0, 0});
  CHECK(parse_architecture("sm_90a") == Architecture{9, 0, 'a'});
  CHECK(parse_architecture("sm_121") == Architecture{12, 1, 0});
  CHECK(parse_architecture("sm_100f").suffix == 'f');
  for (const char* name : {"sm_80", "sm_89", "sm_90a", "sm_100f", "sm_121"})
    CHECK(to_string(parse_architecture(name)) == name);
  for (const char* bad :
       {"", "90a", "sm_", "sm_9", "sm_a", "sm_90b", "sm_90aa", "sm_1000", "sm_09", "compute_90", "sm_9 0"})
    CHECK_THROWS_AS(parse_architecture(bad), Error);
}

TEST_CASE("element sizes and names") {
  CHECK(size_of(DataType::bf16) == 2);
  CHECK(size_of(DataType::fp16) == 2);
  CHECK(size_of(DataType::float32) == 4);
  CHECK(size_of(DataType::int32) == 4);
  CHECK(size_of(DataType::boolean) == 1);
  CHECK(to_string(DataType::bf16) == "bf16");
  CHECK(to_string(Layout::tiled) == "tiled");
}

TEST_CASE("a contiguous view has row-major strides and zeros beyond its rank") {
  float data = 0;
  const TensorView view = TensorView::contiguous(&data, DataType::float32, {2, 3, 5});
  CHECK(view.data == &data);
  CHECK(view.rank == 3);
  CHECK(view.extents == std::array<std::int64_t, 5>{2, 3, 5, 0, 0});
  CHECK(view.strides == std::array<std::int64_t, 5>{15, 5, 1, 0, 0});
  CHECK_NOTHROW(TensorView::contiguous(&data, DataType::float32, {0, 3}));
  CHECK_THROWS_AS(TensorView::contiguous(&data, DataType::float32, {1, 1, 1, 1, 1, 1}), Error);
  CHECK_THROWS_AS(TensorView::contiguous(&data, DataType::float32, {-1}), Error);
  const std::int64_t half = std::int64_t{1} << 32;
  CHECK_THROWS_AS(TensorView::contiguous(&data, DataType::float32, {half, half}), Error);
}
