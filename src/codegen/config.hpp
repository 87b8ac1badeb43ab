// spec -> the named constants that the templates are filled with.
#pragma once

#include <string>
#include <vector>

#include <tilewright/schedule.hpp>

namespace tilewright::codegen {

struct Constant {
  std::string name;        // as templates write it behind "config::"
  std::string declaration; // "constexpr int block_q = 128;"
};

/// Exactly the constants that the spec's kernel and pattern ask for.
std::vector<Constant> constants_of(const Spec& spec);

/// config.cuh: the constants in namespace tilewright::config.
std::string render_config(const Spec& spec, const std::vector<Constant>& constants);

} // namespace tilewright::codegen
