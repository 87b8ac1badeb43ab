#include "table.hpp"

#include <algorithm>
#include <array>
#include <utility>

#include <fmt/format.h>

#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

/// Characters, not bytes: every byte of UTF-8 that does not continue a character begins one.
std::size_t width_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char byte) {
    constexpr unsigned continuation_mask = 0xC0, continuation = 0x80;
    return (static_cast<unsigned char>(byte) & continuation_mask) != continuation;
  }));
}

} // namespace

Table::Table(std::vector<std::string> heading) : rows_{std::move(heading)} {}

void Table::add(std::vector<std::string> cells) {
  if (cells.size() != rows_.front().size())
    throw Error(ErrorCode::internal, fmt::format("a row of {} cells", cells.size()),
                fmt::format("the table has {} columns", rows_.front().size()), "report this as a fault of tilewright");
  rows_.push_back(std::move(cells));
}

std::string Table::text() const {
  std::vector<std::size_t> widths(rows_.front().size(), 0);
  for (const auto& row : rows_)
    for (std::size_t column = 0; column < row.size(); ++column)
      widths[column] = std::max(widths[column], width_of(row[column]));

  std::string text;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    for (std::size_t column = 0; column < widths.size(); ++column) {
      const std::string padding(widths[column] - width_of(rows_[row][column]), ' ');
      text += column == 0 ? rows_[row][column] + padding : "  " + padding + rows_[row][column];
    }
    text.erase(text.find_last_not_of(' ') + 1);
    text += '\n';
    if (row == 0) {
      for (std::size_t column = 0; column < widths.size(); ++column)
        text += (column == 0 ? "" : "  ") + std::string(widths[column], '-');
      text += '\n';
    }
  }
  return text;
}

std::string name_value_lines(const std::vector<std::pair<std::string, std::string>>& lines) {
  std::size_t width = 0;
  for (const auto& [name, value] : lines)
    width = std::max(width, width_of(name));
  std::string text;
  for (const auto& [name, value] : lines)
    text.append(name).append(width - width_of(name) + 2, ' ').append(value).append(1, '\n');
  return text;
}

std::string bytes_text(double bytes) {
  constexpr std::array units{"bytes", "KiB", "MiB", "GiB", "TiB"};
  std::size_t unit = 0;
  while (bytes >= 1024 && unit + 1 < units.size()) {
    bytes /= 1024;
    ++unit;
  }
  return fmt::format("{:.{}f} {}", bytes, unit == 0 || bytes >= 100 ? 0 : 1, units[unit]);
}

} // namespace tilewright::tools
