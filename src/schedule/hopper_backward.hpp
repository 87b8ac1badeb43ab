// The sm90 family's schedules of the backward pass: what its two kernels need
// (templates/kernels/sm90_backward/shared_memory.cuh) and which are worth trying.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule::hopper_backward {

/// Rows that a thread block's consumers own, of those that share a list, and rows of one step: block_k and block_q for
/// attention_backward_key, block_q and block_k for attention_backward_query.
std::int32_t owned_rows(const Problem& problem, const Schedule& schedule) noexcept;
std::int32_t step_rows(const Problem& problem, const Schedule& schedule) noexcept;

/// Whether each consumer has a block of its own, and the loader merges their lists.
bool is_merged(const Problem& problem, const Schedule& schedule) noexcept;

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept;

/// Every reason why a schedule of this family cannot compute a closed problem on a GPU of compute capability 9.0.
std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule);

/// The best guess first; those that do not fit a problem included.
std::vector<Schedule> schedules(const Problem& problem);

} // namespace tilewright::schedule::hopper_backward
