#include "codegen/templates.hpp"

#include <filesystem>
#include <fstream>
#include <iterator>

#include "codegen/source.hpp"
#include "support/environment.hpp"

namespace tilewright::codegen {
namespace {

constexpr const char* folder_variable = "TILEWRIGHT_TEMPLATES";

} // namespace

std::optional<std::string> find_template(std::string_view name) {
  if (const auto folder = support::environment(folder_variable)) {
    std::ifstream file(std::filesystem::path(*folder) / name, std::ios::binary);
    if (!file) {
      return std::nullopt;
    }
    return std::string(std::istreambuf_iterator<char>(file), {});
  }
  for (std::size_t i = 0; i < embedded_template_count; ++i) {
    if (embedded_templates[i].name == name) {
      return std::string(embedded_templates[i].text);
    }
  }
  return std::nullopt;
}

std::string template_origin() { return support::environment(folder_variable).value_or("embedded"); }

} // namespace tilewright::codegen
