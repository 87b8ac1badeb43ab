// The sm90 family's schedules: what its kernel needs (templates/kernels/sm90/shared_memory.cuh) and which are worth
// trying.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schedule/reasons.hpp"
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule::hopper {

constexpr std::int32_t consumer_rows = 64; // query rows of one consumer: the matrix instruction's m

/// Whether a tile's rows follow each other in memory, so that any number of them is a box: its tensor maps are linear
/// (templates/kernels/mapped_attention_parameters.cuh).
bool is_linear(const Problem& problem) noexcept;

/// The shape of the box that rows n, n + 1, ..., n + rows - 1 of a tile fill, for every n that is a multiple of rows;
/// none where they fill no box. Rows are in (t, h, w) order.
std::optional<Extent3> box_of(const Extent3& tile, std::int32_t rows) noexcept;

/// Whether each consumer has a query block of its own, and the loader merges their lists of key blocks.
bool is_merged(const Schedule& schedule) noexcept;

/// How many of the query's columns a consumer holds in registers: as many as it has registers for. The rest stay in
/// shared memory.
std::int32_t query_columns_in_registers(const Problem& problem, const Schedule& schedule) noexcept;

/// What a multiprocessor's shared memory and registers have against the schedule of a Hopper kernel, forward or
/// backward, that needs so many bytes of shared memory.
void add_processor_reasons(Reasons& reasons, const Schedule& schedule, std::int32_t shared);

std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept;

/// Every reason why a schedule of this family cannot compute a closed problem on a GPU of compute capability 9.0.
std::vector<std::string> reasons_against(const Problem& problem, const Schedule& schedule);

/// The best guess first; those that do not fit a problem included.
std::vector<Schedule> schedules(const Problem& problem);

} // namespace tilewright::schedule::hopper
