// Reading what NVRTC and ptxas said about a kernel.
#pragma once

#include <string_view>

#include "compiler/report.hpp"
#include <tilewright/types.hpp>

namespace tilewright::compiler {

/// Registers, spills, stack and shared memory of the one kernel in the log (ptxas -v). Throws compile_failed, with the
/// log, where
///   - a function spills registers to local memory, or
///   - ptxas warned (C7508 to C7520) that warpgroup products run one by one or that setmaxnreg is ignored:
///     both make a kernel several times slower; the message says what each means;
///   - the log does not report this kernel for this architecture: internal.
KernelReport read_compile_log(std::string_view log, std::string_view kernel_name, const Architecture& architecture);

} // namespace tilewright::compiler
