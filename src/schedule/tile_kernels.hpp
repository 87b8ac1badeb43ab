// The schedules of the kernels that work on tiles as a whole: pool_tiles, select_tiles, list_mask,
// transpose_lists, and the gradients of coarse attention and of blending. One family, sm80, for all GPUs.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "schedule/feasibility.hpp"
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule::tile_kernels {

bool is_one(Operator op) noexcept;
bool is_coarse_backward(Operator op) noexcept;

/// What a thread block needs before what grows with the call: select_tiles' strip, transpose_lists' bits.
std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept;

/// select_tiles: words from one row of a strip of scores to the next, and bytes of a strip.
std::int32_t strip_stride(std::int64_t key_tiles) noexcept;
std::int64_t strip_bytes(const Schedule& schedule, std::int64_t key_tiles) noexcept;

/// transpose_lists: bytes of a thread block's bits.
std::int64_t bit_bytes(const Schedule& schedule, std::int64_t query_tiles) noexcept;

std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule,
                                         const ProcessorLimits& limits);

/// The best guess first.
std::vector<Schedule> schedules(const Problem& problem);

} // namespace tilewright::schedule::tile_kernels
