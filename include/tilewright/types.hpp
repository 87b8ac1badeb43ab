// The small values that every other header speaks in.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace tilewright {

enum class DataType : std::uint8_t { bf16, fp16, float32, int32, boolean };

/// Bytes of one element.
std::size_t size_of(DataType type) noexcept;
std::string_view to_string(DataType type) noexcept;

/// How a tensor's tokens are ordered.
enum class Layout : std::uint8_t {
  raster, // [batch, tokens, heads, head_dim]; video tokens in (t, h, w) order, then text tokens
  tiled   // [batch, heads, tokens, head_dim]; video tokens grouped by tile, each tile padded to its full
          // size with its valid tokens first, then text tokens
};
std::string_view to_string(Layout layout) noexcept;

/// Three extents along (t, h, w). A canvas is counted in tokens, a tile in tokens, a window in tiles.
/// 1-D and 2-D problems have extents of 1 in front.
struct Extent3 {
  std::int32_t t = 0, h = 0, w = 0;

  [[nodiscard]] constexpr std::int64_t volume() const noexcept { return std::int64_t{t} * h * w; }
  friend constexpr bool operator==(const Extent3&, const Extent3&) = default;
};

/// "6x8x8".
std::string to_string(const Extent3& extent);
/// Parses "6x8x8". Throws invalid_argument.
Extent3 parse_extent3(std::string_view text);

/// A view of the caller's memory: the caller keeps ownership and keeps it alive until the work that
/// uses it has finished on its stream. Strides are in elements; extents and strides beyond rank are 0.
struct TensorView {
  static constexpr int max_rank = 5;

  void* data = nullptr;
  DataType dtype = DataType::bf16;
  int rank = 0;
  std::array<std::int64_t, max_rank> extents{};
  std::array<std::int64_t, max_rank> strides{};

  /// Row-major and dense: the last dimension has stride 1.
  static TensorView contiguous(void* data, DataType dtype, std::initializer_list<std::int64_t> extents);
};

/// A GPU instruction set as NVRTC names it; sm_90a is not sm_90.
struct Architecture {
  std::uint8_t major = 0, minor = 0;
  char suffix = 0; // 0, 'a' or 'f'

  [[nodiscard]] constexpr int number() const noexcept { return major * 10 + minor; }
  friend constexpr bool operator==(const Architecture&, const Architecture&) = default;
};

/// "sm_90a".
std::string to_string(const Architecture& architecture);
/// Parses "sm_90a". Throws invalid_argument.
Architecture parse_architecture(std::string_view text);

/// A CUstream or cudaStream_t, passed through untouched; nullptr is the default stream.
using Stream = void*;

} // namespace tilewright
