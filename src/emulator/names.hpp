// Words for error messages.
#pragma once

#include <string>

#include "emulator/scheduler.hpp"

namespace tilewright::emulator {

/// The primitives, by WarpOperation.
constexpr const char* operation_names[] = {"load_matrices",
                                           "load_matrices_transposed",
                                           "store_matrices",
                                           "multiply_add",
                                           "vote",
                                           "shuffle_xor",
                                           "broadcast",
                                           "uniform",
                                           "minimum_of_lanes",
                                           "maximum_of_lanes",
                                           "sum_of_lanes",
                                           "elect_lane",
                                           "synchronize_warp",
                                           "release_registers",
                                           "claim_registers",
                                           "fence_products",
                                           "multiply_shared",
                                           "multiply_registers",
                                           "commit_products",
                                           "wait_for_products"};

constexpr const char* to_string(WarpOperation operation) noexcept {
  return operation_names[static_cast<std::size_t>(operation)];
}

/// "kernels/attention_forward_sm80.cu:123".
std::string to_string(Place place);

/// Lanes of a mask: "0-3, 7".
std::string lanes_to_string(std::uint32_t mask);

} // namespace tilewright::emulator
