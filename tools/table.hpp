// Tables for people.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tilewright::tools {

/// Rows under a heading, columns as wide as their longest cell. The first column is aligned to the left, the others
/// to the right: they hold numbers.
class Table {
public:
  explicit Table(std::vector<std::string> heading);

  /// As many cells as the heading has.
  void add(std::vector<std::string> cells);
  [[nodiscard]] std::string text() const;

private:
  std::vector<std::vector<std::string>> rows_;
};

/// Lines of a name and a value, the values under each other.
std::string name_value_lines(const std::vector<std::pair<std::string, std::string>>& lines);

/// "1.5 KiB", "96 MiB".
std::string bytes_text(double bytes);

} // namespace tilewright::tools
