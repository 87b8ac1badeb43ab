// The generic family's schedules of the backward kernels: what they need and which are worth trying.
#pragma once

#include <cstdint>
#include <vector>

#include "schedule/feasibility.hpp"
#include "schedule/reasons.hpp"
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule::backward {

/// Dynamic shared memory of one thread block of the sm80 kernel, in bytes.
std::int32_t shared_memory_bytes(const Problem& problem, const Schedule& schedule) noexcept;

/// As least_registers of feasibility.hpp.
std::int32_t least_registers(const Problem& problem, const Schedule& schedule) noexcept;

/// What the sm80 kernel's structure asks for.
void add_shape_reasons(Reasons& reasons, const Problem& problem, const Schedule& schedule, const Architecture& gpu);

/// The best guess first; those that do not fit a problem or a GPU included.
std::vector<Schedule> sm80_schedules(Operator op);

} // namespace tilewright::schedule::backward
