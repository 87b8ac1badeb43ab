// What tuning leaves behind: the table that runtimes read, and a report for people.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <tilewright/tuner.hpp>

namespace tilewright::tools {

/// One tuned problem and the circumstances.
struct TuningRecord {
  TuningResult result;
  nlohmann::json call;        // heads, canvas, ...: the inputs that were measured
  nlohmann::json environment; // GPU, driver, clocks before and after
};

/// Adds the records to the table at this path (made where it is missing): "schedules" maps each problem to its winner,
/// "measured" keeps the default's and the winner's samples in milliseconds, the call and the environment. Throws
/// cache_corrupt where what is there is no table of this architecture.
void write_tuned_table(const std::filesystem::path& path, const Architecture& gpu,
                       const std::vector<TuningRecord>& records);

/// report.md: every schedule that was tried, why it was dropped, and why the winner won; and a plot for each problem,
/// tuning_1.svg and so on.
void write_tuning_report(const std::filesystem::path& folder, const std::vector<TuningRecord>& records);

/// Why the winner won, in one sentence.
std::string reason_for(const TuningResult& result);

/// Times of every schedule that was measured, as a picture: a box from quartile to quartile, a line at the median.
std::string tuning_svg(const TuningResult& result);

} // namespace tilewright::tools
