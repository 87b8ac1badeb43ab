// spec -> one self-contained CUDA source.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include <tilewright/schedule.hpp>

namespace tilewright::codegen {

/// What the source is generated for: NVRTC and nvcc, or the emulator's host compiler, which takes the same
/// kernels and patterns with another set of device headers.
enum class Target : std::uint8_t { cuda, emulator };

struct GeneratedSource {
  std::string text;        // self-contained; #line directives name the template files
  std::string kernel_name; // the one extern "C" kernel in it
};

/// Throws unsupported where no template computes the spec; internal where a template asks for a constant that the
/// spec does not give, or the reverse (both names are in the message).
GeneratedSource generate(const Spec& spec, Target target = Target::cuda);

/// The kernel's name alone, without generating.
std::string_view kernel_name(const Spec& spec);

/// Where templates are read from: the folder in $TILEWRIGHT_TEMPLATES, or "embedded".
std::string template_origin();

} // namespace tilewright::codegen
