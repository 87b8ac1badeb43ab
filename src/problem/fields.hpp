// The "name=value,name=value" part of the one-line text forms: problems and schedules.
#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <tilewright/types.hpp>

namespace tilewright::problem {

/// One row of a table that gives an enumeration's values their names.
template <typename Value> struct Named {
  Value value;
  std::string_view name;
};

/// The value's name; "invalid" where the table does not have it, so that error messages can show any value.
template <typename Value, std::size_t Count>
constexpr std::string_view name_of(const Named<Value> (&table)[Count], Value value) noexcept {
  for (const auto& row : table)
    if (row.value == value)
      return row.name;
  return "invalid";
}

/// The fields of one line. The text must outlive it. Every throw is invalid_argument and names the field.
class Fields {
public:
  /// subject names the line in errors, for example "problem". Throws where a field has no "=", stands twice or
  /// is not among the known ones.
  Fields(std::string_view subject, std::string_view text, std::span<const std::string_view> known);

  /// The field's value; none where the line does not have it.
  [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const;

  /// Its value as an integer in minimum .. maximum, as an extent, or as a name out of a table; the fallback where
  /// the line does not have the field.
  [[nodiscard]] std::int64_t integer(std::string_view name, std::int64_t fallback, std::int64_t minimum,
                                     std::int64_t maximum) const;
  [[nodiscard]] Extent3 extent(std::string_view name, Extent3 fallback) const;
  template <typename Value, std::size_t Count>
  [[nodiscard]] Value choice(std::string_view name, Value fallback, const Named<Value> (&table)[Count]) const {
    const auto text = find(name);
    if (!text)
      return fallback;
    const auto row = std::find_if(std::begin(table), std::end(table), [&](const auto& r) { return r.name == *text; });
    if (row != std::end(table))
      return row->value;
    std::string allowed;
    for (const auto& candidate : table)
      allowed += (allowed.empty() ? "" : ", ") + std::string(candidate.name);
    refuse(name, allowed);
  }

  /// Throws the error for this field's value. allowed: the values that would be right.
  [[noreturn]] void refuse(std::string_view name, std::string_view allowed) const;

private:
  std::string_view subject_;
  std::vector<std::pair<std::string_view, std::string_view>> fields_;
};

} // namespace tilewright::problem
