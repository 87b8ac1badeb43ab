// The template files: embedded in the library, or read from $TILEWRIGHT_TEMPLATES while developing.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace tilewright::codegen {

struct EmbeddedTemplate {
  std::string_view name; // path under templates/, for example "device/copy.cuh"
  std::string_view text;
};

extern const EmbeddedTemplate embedded_templates[];
extern const std::size_t embedded_template_count;

/// A template's text by its path under templates/; nothing where there is none of that name.
std::optional<std::string> find_template(std::string_view name);

} // namespace tilewright::codegen
