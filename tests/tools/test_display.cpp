// Pictures, tables and the progress line.
#include <doctest/doctest.h>

#include <vector>

#include <png.h>

#include "support_temporary_folder.hpp"
#include "tools/picture.hpp"
#include "tools/progress.hpp"
#include "tools/table.hpp"
#include <tilewright/error.hpp>

using namespace tilewright;
using namespace tilewright::tools;

namespace {

const Style style{{{255, 255, 255}, {10, 20, 30}}, ".#"};

Picture corner() {
  Picture picture(3, 2);
  picture.at(0, 0) = picture.at(2, 1) = 1;
  return picture;
}

} // namespace

TEST_CASE("a picture's text has one line a row") { CHECK(to_text(corner(), style) == "#..\n..#\n"); }

TEST_CASE("a PNG holds the cells as squares") {
  const TemporaryFolder folder;
  const auto path = folder.path() / "picture.png";
  write_png(path, corner(), style);

  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  REQUIRE(png_image_begin_read_from_file(&image, path.c_str()) != 0);
  image.format = PNG_FORMAT_RGB;
  REQUIRE(image.width == 3 * image.height / 2);
  std::vector<std::uint8_t> pixels(PNG_IMAGE_SIZE(image));
  REQUIRE(png_image_finish_read(&image, nullptr, pixels.data(), 0, nullptr) != 0);
  const auto red = [&](std::size_t x, std::size_t y) { return pixels[(y * image.width + x) * 3]; };
  CHECK(red(0, 0) == 10);
  CHECK(red(image.width / 2, 0) == 255);
  CHECK(red(image.width - 1, 0) == 255);
  CHECK(red(image.width - 1, image.height - 1) == 10);
}

TEST_CASE("pictures without cells, or with too many, are refused") {
  const TemporaryFolder folder;
  CHECK_THROWS_AS(write_png(folder.path() / "empty.png", Picture(0, 5), style), Error);
  CHECK_THROWS_AS(write_png(folder.path() / "long.png", Picture(100000, 1), style), Error);
}

TEST_CASE("tables align text to the left and numbers to the right") {
  Table table({"name", "ms"});
  table.add({"größer", "7"});
  table.add({"a", "12.5"});
  CHECK(table.text() == "name      ms\n------  ----\ngrößer     7\na       12.5\n");
  CHECK_THROWS_AS(table.add({"one cell"}), Error);
  CHECK(name_value_lines({{"a", "1"}, {"long", "2"}}) == "a     1\nlong  2\n");
  CHECK(bytes_text(512) == "512 bytes");
  CHECK(bytes_text(1536) == "1.5 KiB");
  CHECK(bytes_text(96.0 * 1024 * 1024) == "96.0 MiB");
}

TEST_CASE("the progress line shows the share that is done") {
  CHECK(progress_line("compiling", 0, 4, 1.2) == "compiling [                              ] 0/4 1 s");
  CHECK(progress_line("compiling", 2, 4, 3.0) == "compiling [===============               ] 2/4 3 s");
  CHECK(progress_line("compiling", 4, 4, 9.9) == "compiling [==============================] 4/4 10 s");
  CHECK(progress_line("waiting", 0, 0, 2.0) == "waiting 2 s");
}
