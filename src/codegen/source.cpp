#include "codegen/source.hpp"

#include <set>

#include <fmt/format.h>

#include "codegen/config.hpp"
#include "codegen/templates.hpp"
#include <tilewright/error.hpp>

namespace tilewright::codegen {
namespace {

constexpr std::string_view config_name = "config.cuh";
constexpr std::string_view pattern_name = "pattern.cuh";
constexpr std::string_view inverse_pattern_name = "inverse_pattern.cuh";
constexpr std::string_view device_prefix = "device/";
constexpr std::string_view emulator_prefix = "emulator/";
constexpr std::string_view constant_prefix = "config::";

/// One file a kernel and family: kernels/<operator>_<family>.cu, whose entry is named like the operator.
std::string kernel_template(const Spec& spec) {
  if (spec.schedule.family == Family::automatic) {
    throw Error(ErrorCode::internal, "a spec without a kernel family reached the code generator: " + to_string(spec),
                "family=sm80 or family=sm90", "take the schedule from schedule::default_schedule");
  }
  return fmt::format("kernels/{}_{}.cu", to_string(spec.problem.op), to_string(spec.schedule.family));
}

/// The file that a kernel means by pattern.cuh (the key blocks of a query block), and by inverse_pattern.cuh (the query
/// blocks of a key block, which the backward pass walks through).
struct PatternTemplates {
  std::string_view forward, inverse;
};

PatternTemplates pattern_templates(PatternKind pattern) {
  switch (pattern) {
  case PatternKind::dense:
    return {"patterns/dense.cuh", "patterns/dense_inverse.cuh"};
  case PatternKind::sliding_tile:
    return {"patterns/sliding_tile.cuh", "patterns/sliding_tile_inverse.cuh"};
  case PatternKind::block_list:
    return {"patterns/block_list.cuh", "patterns/block_list_inverse.cuh"};
  }
  throw Error(ErrorCode::internal, "unknown pattern", "dense, sliding_tile or block_list", "report this");
}

bool is_identifier_character(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

/// Joins a kernel and all that it includes into one text, each file once, in the order of their inclusion.
class Flattener {
public:
  Flattener(const Spec& spec, std::string config, Target target)
      : pattern_(pattern_templates(spec.problem.pattern)), config_(std::move(config)), target_(target) {}

  void append(std::string_view included_as) {
    const std::string_view name = resolved(included_as);
    if (!seen_.emplace(name).second) {
      return;
    }
    const std::string text = read(name);
    collect_constants(name, text);
    std::size_t line_number = 0;
    mark(1, name);
    for (std::size_t start = 0; start < text.size();) {
      std::size_t end = text.find('\n', start);
      end = end == std::string::npos ? text.size() : end;
      const std::string_view line(text.data() + start, end - start);
      start = end + 1;
      ++line_number;
      if (line == "#pragma once") {
        text_ += '\n';
      } else if (const std::string_view included = quoted_include(line); !included.empty()) {
        append(included);
        mark(line_number + 1, name);
      } else {
        text_ += line;
        text_ += '\n';
      }
    }
  }

  [[nodiscard]] const std::set<std::string, std::less<>>& used_constants() const { return used_; }
  std::string take() { return std::move(text_); }

private:
  static std::string_view quoted_include(std::string_view line) {
    constexpr std::string_view opening = "#include \"";
    if (!line.starts_with(opening) || !line.ends_with('"')) {
      return {};
    }
    return line.substr(opening.size(), line.size() - opening.size() - 1);
  }

  std::string read(std::string_view name) const {
    if (name == config_name) {
      return config_;
    }
    std::optional<std::string> text;
    if (target_ == Target::emulator && name.starts_with(device_prefix)) {
      text = find_template(std::string(emulator_prefix) + std::string(name.substr(device_prefix.size())));
    }
    if (!text) {
      text = find_template(name);
    }
    if (!text) {
      throw Error(ErrorCode::internal, fmt::format("the template \"{}\" does not exist in {}", name, template_origin()),
                  "the files of templates/", "unset TILEWRIGHT_TEMPLATES, or point it to a complete folder");
    }
    return *text;
  }

  /// The file that stands behind the two names that depend on the pattern.
  [[nodiscard]] std::string_view resolved(std::string_view name) const {
    return name == pattern_name ? pattern_.forward : name == inverse_pattern_name ? pattern_.inverse : name;
  }

  void mark(std::size_t line, std::string_view name) { text_ += fmt::format("#line {} \"{}\"\n", line, name); }

  void collect_constants(std::string_view name, const std::string& text) {
    if (name == config_name) {
      return;
    }
    for (std::size_t at = text.find(constant_prefix); at != std::string::npos; at = text.find(constant_prefix, at)) {
      at += constant_prefix.size();
      std::size_t end = at;
      while (end < text.size() && is_identifier_character(text[end])) {
        ++end;
      }
      used_.insert(text.substr(at, end - at));
    }
  }

  PatternTemplates pattern_;
  std::string config_;
  Target target_;
  std::string text_;
  std::set<std::string, std::less<>> seen_, used_;
};

void check_constants(const std::vector<Constant>& given, const std::set<std::string, std::less<>>& used,
                     const Spec& spec) {
  std::set<std::string, std::less<>> names;
  for (const Constant& constant : given) {
    names.insert(constant.name);
    if (!used.contains(constant.name)) {
      throw Error(ErrorCode::internal,
                  fmt::format("the spec gives config::{}, which no template of {} asks for", constant.name,
                              kernel_template(spec)),
                  "only constants that are used", "remove it from src/codegen/config.cpp, or use it in the template");
    }
  }
  for (const std::string& name : used) {
    if (!names.contains(name)) {
      throw Error(ErrorCode::internal,
                  fmt::format("{} asks for config::{}, which the spec does not give", kernel_template(spec), name),
                  "the constants of src/codegen/config.cpp", "add it there, or correct the name in the template");
    }
  }
}

/// The emulator calls each thread through one untyped entry.
std::string emulator_entry(std::string_view kernel) {
  return fmt::format(R"(
extern "C" void tilewright_emulated_thread(const void* arguments) {{
  {}(*static_cast<const tilewright::KernelArguments*>(arguments));
}}
)",
                     kernel);
}

} // namespace

std::string_view kernel_name(const Spec& spec) { return to_string(spec.problem.op); }

GeneratedSource generate(const Spec& spec, Target target) {
  const std::vector<Constant> constants = constants_of(spec);
  Flattener flattener(spec, render_config(spec, constants), target);
  flattener.append(kernel_template(spec));
  check_constants(constants, flattener.used_constants(), spec);
  GeneratedSource source{flattener.take(), std::string(kernel_name(spec))};
  if (target == Target::emulator) {
    source.text += emulator_entry(source.kernel_name);
  }
  return source;
}

} // namespace tilewright::codegen
