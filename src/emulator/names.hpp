// Words for error messages.
#pragma once

#include <string>
#include <string_view>

#include "emulator/scheduler.hpp"

namespace tilewright::emulator {

/// The primitive's name.
std::string_view to_string(WarpOperation operation) noexcept;

/// "kernels/attention_forward_sm80.cu:123".
std::string to_string(Place place);

/// Lanes of a mask: "0-3, 7".
std::string lanes_to_string(std::uint32_t mask);

} // namespace tilewright::emulator
