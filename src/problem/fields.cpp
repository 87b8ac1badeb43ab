#include "problem/fields.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "support/text.hpp"
#include <tilewright/error.hpp>

namespace tilewright::problem {

Fields::Fields(std::string_view subject, std::string_view text, std::span<const std::string_view> known)
    : subject_(subject) {
  const auto complain = [&](std::string wrong, std::string_view remedy) {
    throw Error(ErrorCode::invalid_argument, std::move(wrong),
                fmt::format("fields of a {}: {}", subject, fmt::join(known, ", ")), std::string(remedy));
  };
  for (const auto field : support::split(text, ',')) {
    const auto equals = field.find('=');
    if (equals == std::string_view::npos)
      complain(fmt::format("{} field '{}' has no '='", subject, field), "write name=value, separated by commas");
    const auto name = field.substr(0, equals);
    const auto value = field.substr(equals + 1);
    if (std::find(known.begin(), known.end(), name) == known.end())
      complain(fmt::format("{} field '{}' is unknown (its value: '{}')", subject, name, value),
               "correct its name or leave it out");
    if (const auto first = find(name))
      complain(fmt::format("{} field {} stands twice, as '{}' and '{}'", subject, name, *first, value),
               "leave one of them out");
    fields_.emplace_back(name, value);
  }
}

std::optional<std::string_view> Fields::find(std::string_view name) const {
  for (const auto& [field, value] : fields_)
    if (field == name)
      return value;
  return std::nullopt;
}

std::int64_t Fields::integer(std::string_view name, std::int64_t fallback, std::int64_t minimum,
                             std::int64_t maximum) const {
  const auto text = find(name);
  if (!text)
    return fallback;
  return support::parse_integer(*text, fmt::format("{} field {}", subject_, name), minimum, maximum);
}

Extent3 Fields::extent(std::string_view name, Extent3 fallback) const {
  const auto text = find(name);
  if (!text)
    return fallback;
  try {
    return parse_extent3(*text);
  } catch (const Error& error) {
    throw Error(error.code(), fmt::format("{} field {} is '{}'", subject_, name, *text), error.allowed(),
                error.remedy());
  }
}

void Fields::refuse(std::string_view name, std::string_view allowed) const {
  throw Error(ErrorCode::invalid_argument, fmt::format("{} field {} is '{}'", subject_, name, find(name).value_or("")),
              fmt::format("allowed: {}", allowed), fmt::format("correct the value of {}", name));
}

} // namespace tilewright::problem
