#include "compiler/compile_log.hpp"

#include <algorithm>
#include <charconv>
#include <map>
#include <string>

#include <fmt/format.h>

#include "support/text.hpp"
#include <tilewright/error.hpp>

namespace tilewright::compiler {
namespace {

constexpr int first_warning = 7508, last_warning = 7520;

/// What a warning of ptxas means for whoever wrote the kernel.
std::string_view meaning_of(int warning) {
  switch (warning) {
  case 7508:
    return "setmaxnreg is ignored: the kernel needs __launch_bounds__(N, 1)";
  case 7511:
  case 7512:
    return "too few registers for the warpgroup products, or an accumulator indexed at run time";
  case 7514:
    return "an accumulator is touched between the issue of a warpgroup product and its wait";
  case 7517:
  case 7519:
    return "the compiler had to add a wait or a fence: an accumulator is touched while a product runs";
  case 7520:
    return "a wgmma.fence is missing, or a lambda around a product was not inlined";
  default:
    return "warpgroup products run one after the other";
  }
}

/// The number right before `unit` in the line; 0 where the line does not have it.
std::int32_t number_before(std::string_view line, std::string_view unit) {
  const std::size_t end = line.find(unit);
  if (end == std::string_view::npos)
    return 0;
  std::size_t start = end;
  while (start > 0 && line[start - 1] >= '0' && line[start - 1] <= '9')
    --start;
  std::int32_t number = 0;
  std::from_chars(line.data() + start, line.data() + end, number);
  return number;
}

/// The number in "(C7511)"; 0 where the line has none.
int warning_in(std::string_view line) {
  constexpr std::string_view opening = "(C";
  const std::size_t start = line.find(opening);
  if (start == std::string_view::npos)
    return 0;
  int number = 0;
  const char* const digits = line.data() + start + opening.size();
  const auto [stop, error] = std::from_chars(digits, line.data() + line.size(), number);
  return error == std::errc{} && stop != line.data() + line.size() && *stop == ')' ? number : 0;
}

Error refused(std::string_view kernel_name, const Architecture& architecture, std::string_view reason,
              std::string_view log) {
  return {ErrorCode::compile_failed,
          fmt::format("the kernel {} compiled for {}, but {}", kernel_name, to_string(architecture), reason),
          "kernels without register spills and without performance warnings are allowed",
          fmt::format("choose a schedule with smaller blocks or more registers. The compiler's log:\n{}", log)};
}

} // namespace

KernelReport read_compile_log(std::string_view log, std::string_view kernel_name, const Architecture& architecture) {
  const std::string entry = fmt::format("Compiling entry function '{}' for '{}'", kernel_name, to_string(architecture));
  KernelReport report;
  bool found = false;
  std::map<int, std::string_view> warnings;
  for (const std::string_view line : support::split(log, '\n')) {
    found = found || line.find(entry) != std::string_view::npos;
    report.registers = std::max(report.registers, number_before(line, " registers"));
    report.static_shared_bytes = std::max(report.static_shared_bytes, number_before(line, " bytes smem"));
    report.stack_bytes = std::max({report.stack_bytes, number_before(line, " bytes stack frame"),
                                   number_before(line, " bytes cumulative stack size")});
    report.spill_bytes += number_before(line, " bytes spill stores") + number_before(line, " bytes spill loads");
    if (const int warning = warning_in(line); warning >= first_warning && warning <= last_warning)
      warnings.emplace(warning, meaning_of(warning));
  }
  if (!found)
    throw Error(ErrorCode::internal, fmt::format("the compiler's log does not say \"{}\"", entry),
                "one kernel of this name, for this architecture, is expected of every source",
                fmt::format("report this as a fault of tilewright. The compiler's log:\n{}", log));
  if (!warnings.empty()) {
    std::string reasons;
    for (const auto& [warning, meaning] : warnings)
      reasons += fmt::format("{}C{} ({})", reasons.empty() ? "" : ", ", warning, meaning);
    throw refused(kernel_name, architecture, fmt::format("ptxas warned {}", reasons), log);
  }
  if (report.spill_bytes > 0)
    throw refused(kernel_name, architecture,
                  fmt::format("it spills registers: {} bytes of stores and loads to local memory", report.spill_bytes),
                  log);
  return report;
}

} // namespace tilewright::compiler
