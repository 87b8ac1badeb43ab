// Small pictures: written as PNG for people, as text for terminals and tests.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace tilewright::tools {

struct Colour {
  std::uint8_t red = 255, green = 255, blue = 255;
};

/// width * height cells in rows, each an index into the palette and one character of the text form.
struct Picture {
  std::int64_t width = 0, height = 0;
  std::vector<std::uint8_t> cells;

  Picture(std::int64_t wide, std::int64_t high, std::uint8_t cell = 0);

  std::uint8_t& at(std::int64_t x, std::int64_t y) { return cells[static_cast<std::size_t>(y * width + x)]; }
  [[nodiscard]] std::uint8_t at(std::int64_t x, std::int64_t y) const {
    return cells[static_cast<std::size_t>(y * width + x)];
  }
};

/// What the cells mean.
struct Style {
  std::vector<Colour> palette;
  std::string characters; // one a palette entry
};

/// A PNG whose cells are squares, large enough to see (the picture has about 768 pixels on its longer side, or one a
/// cell). Throws invalid_argument where it cannot be written.
void write_png(const std::filesystem::path& path, const Picture& picture, const Style& style);

/// One line a row.
std::string to_text(const Picture& picture, const Style& style);

} // namespace tilewright::tools
