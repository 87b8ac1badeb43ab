// Collects reasons in plain words.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <fmt/format.h>

namespace tilewright::schedule {

/// Collects the reasons that hold.
class Reasons {
public:
  template <typename... Arguments>
  void add_if(bool holds, fmt::format_string<Arguments...> form, Arguments&&... arguments) {
    if (holds)
      reasons_.push_back(fmt::format(form, std::forward<Arguments>(arguments)...));
  }
  [[nodiscard]] bool empty() const noexcept { return reasons_.empty(); }
  std::vector<std::string> take() { return std::move(reasons_); }

private:
  std::vector<std::string> reasons_;
};

} // namespace tilewright::schedule
