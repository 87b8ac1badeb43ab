#include "picture.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <png.h>

#include "output_file.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

constexpr std::int64_t wanted_pixels = 768;
constexpr std::int64_t most_pixels = 16384; // on a side

[[noreturn]] void refuse_picture(const std::filesystem::path& path, std::string_view reason) {
  throw Error(ErrorCode::invalid_argument, fmt::format("{} cannot be drawn: {}", path.string(), reason),
              fmt::format("pictures of 1 to {} cells on a side are drawn", most_pixels),
              "choose fewer tiles, or the text form");
}

std::vector<std::uint8_t> paint(const Picture& picture, const Style& style, std::int64_t scale) {
  std::vector<std::uint8_t> pixels;
  pixels.reserve(static_cast<std::size_t>(picture.width * picture.height * scale * scale * 3));
  for (std::int64_t y = 0; y < picture.height * scale; ++y)
    for (std::int64_t x = 0; x < picture.width * scale; ++x) {
      const Colour& colour = style.palette.at(picture.at(x / scale, y / scale));
      pixels.insert(pixels.end(), {colour.red, colour.green, colour.blue});
    }
  return pixels;
}

} // namespace

Picture::Picture(std::int64_t wide, std::int64_t high, std::uint8_t cell)
    : width(wide), height(high), cells(static_cast<std::size_t>(wide * high), cell) {}

void write_png(const std::filesystem::path& path, const Picture& picture, const Style& style) {
  const std::int64_t longer = std::max(picture.width, picture.height);
  if (picture.width < 1 || picture.height < 1 || longer > most_pixels)
    refuse_picture(path, fmt::format("it has {} x {} cells", picture.width, picture.height));
  const std::int64_t scale = std::max<std::int64_t>(1, wanted_pixels / longer);
  const std::vector<std::uint8_t> pixels = paint(picture, style, scale);

  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  image.width = static_cast<png_uint_32>(picture.width * scale);
  image.height = static_cast<png_uint_32>(picture.height * scale);
  image.format = PNG_FORMAT_RGB;
  constexpr png_int_32 dense_rows = 0;
  png_alloc_size_t bytes = 0;
  std::string file;
  // The first call tells the size, the second writes.
  for (int pass = 0; pass < 2; ++pass) {
    file.resize(bytes);
    if (png_image_write_to_memory(&image, pass == 0 ? nullptr : file.data(), &bytes, 0, pixels.data(), dense_rows,
                                  nullptr) == 0)
      refuse_picture(path, image.message);
  }
  file.resize(bytes);
  write_output(path, file);
}

std::string to_text(const Picture& picture, const Style& style) {
  std::string text;
  for (std::int64_t y = 0; y < picture.height; ++y) {
    for (std::int64_t x = 0; x < picture.width; ++x)
      text += style.characters.at(picture.at(x, y));
    text += '\n';
  }
  return text;
}

} // namespace tilewright::tools
