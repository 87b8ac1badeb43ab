#include "driver/tensor_map.hpp"

#include <array>
#include <span>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <tilewright/error.hpp>

namespace tilewright::cuda {
namespace {

TensorMapDataType map_type(DataType type) {
  switch (type) {
  case DataType::bf16:
    return TensorMapDataType::bfloat16;
  case DataType::fp16:
    return TensorMapDataType::float16;
  case DataType::float32:
    return TensorMapDataType::float32;
  case DataType::int32:
    return TensorMapDataType::int32;
  case DataType::boolean:
    break;
  }
  throw Error(ErrorCode::internal, fmt::format("a tensor map of {} was asked for", to_string(type)),
              "bf16, fp16, float32 and int32 are copied by tensor maps", "report this as a fault of tilewright");
}

std::string describe(const TensorMapRequest& request) {
  return fmt::format("cuTensorMapEncodeTiled ({} at {}, extents {}, strides in bytes {}, box {})",
                     to_string(request.dtype), fmt::ptr(request.data), std::span(request.extents, request.rank),
                     std::span(request.strides_bytes, request.rank), std::span(request.box, request.rank));
}

} // namespace

TensorMap encode(const Api& api, const TensorMapRequest& request) {
  constexpr std::uint32_t max_rank = std::size(TensorMapRequest{}.extents);
  constexpr std::array<std::uint32_t, max_rank> every_element{1, 1, 1, 1, 1};
  if (request.rank == 0 || request.rank > max_rank)
    throw Error(ErrorCode::internal, fmt::format("a tensor map of rank {} was asked for", request.rank),
                fmt::format("1 to {} is allowed", max_rank), "report this as a fault of tilewright");
  TensorMap map;
  const Result result = api.tensor_map_encode_tiled(
      map.words, map_type(request.dtype), request.rank, request.data, request.extents, request.strides_bytes + 1,
      request.box, every_element.data(), TensorMapInterleave::none, TensorMapSwizzle::bytes_128,
      TensorMapL2Promotion::bytes_256, TensorMapFill::zeros);
  if (result != Result::success)
    throw Error(ErrorCode::driver_error,
                fmt::format("{} failed with {}", describe(request), cuda::describe(api, result)),
                "an address and strides that are multiples of 16 bytes, extents from 1 to 2^32, strides below 2^40, "
                "boxes from 1 to 256 with at most 128 bytes in the innermost dimension are allowed",
                "make the tensor contiguous, or a view with such strides");
  return map;
}

} // namespace tilewright::cuda
