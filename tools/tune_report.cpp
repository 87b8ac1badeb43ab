#include "tune_report.hpp"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "output_file.hpp"
#include "schedule/tuned_table.hpp"
#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

std::string samples_text(const std::vector<double>& samples) {
  return fmt::format("{:.4f}", fmt::join(samples, " ")); // one line in the file, and as short as the clock is exact
}

nlohmann::json statistics(const Trial& trial) {
  return {{"schedule", to_string(trial.schedule)},
          {"median_ms", trial.times.median},
          {"quartiles_ms", {trial.times.lower, trial.times.upper}},
          {"samples_ms", samples_text(trial.samples)}};
}

/// "family=sm90,block_q=192,block_k=64" without what all trials have in common is what a reader wants; this leaves the
/// family out, which the default names.
std::string short_name(const Schedule& schedule) {
  const std::string text = to_string(schedule);
  return text.substr(text.find(',') + 1);
}

std::vector<const Trial*> measured(const TuningResult& result) {
  std::vector<const Trial*> trials;
  for (const Trial& trial : result.trials)
    if (!trial.samples.empty())
      trials.push_back(&trial);
  std::stable_sort(trials.begin(), trials.end(),
                   [](const Trial* a, const Trial* b) { return a->times.median < b->times.median; });
  return trials;
}

std::string problem_section(const TuningRecord& record, std::size_t number) {
  const TuningResult& result = record.result;
  std::string text =
      fmt::format("## {}\n\n{}\n\nCall: `{}`\n\nEnvironment: `{}`\n\n![times](tuning_{}.svg)\n\n",
                  to_string(result.problem), reason_for(result), record.call.dump(), record.environment.dump(), number);
  text += "| schedule | median ms | quartiles ms | samples | outcome |\n| --- | ---: | ---: | ---: | --- |\n";
  for (const Trial* trial : measured(result)) {
    const bool won = trial == &result.trials[result.winner], standard = trial == &result.trials[result.standard];
    text += fmt::format("| {} | {:.4f} | {:.4f} to {:.4f} | {} | {}{}{} |\n", to_string(trial->schedule),
                        trial->times.median, trial->times.lower, trial->times.upper, trial->samples.size(),
                        won ? "**winner** " : "", standard ? "default " : "", trial->reason);
  }
  text += "\nNot measured:\n\n";
  for (const Trial& trial : result.trials)
    if (trial.samples.empty())
      text += fmt::format("- {}: {}: {}\n", to_string(trial.schedule), to_string(trial.outcome),
                          trial.reason.substr(0, trial.reason.find('\n')));
  return text + "\n";
}

} // namespace

std::string reason_for(const TuningResult& result) {
  const Trial &winner = result.trials[result.winner], &standard = result.trials[result.standard];
  if (result.winner == result.standard)
    return fmt::format("The default won: nothing was clearly faster than its {:.4f} ms (median of {}); ties go to it.",
                       standard.times.median, standard.samples.size());
  return fmt::format("`{}` won: {:.4f} ms against the default's {:.4f} ms (medians of {}), {:.1f} % less. It is the "
                     "first, in the order of preference, of those whose median is within a tie of the best.",
                     to_string(winner.schedule), winner.times.median, standard.times.median, winner.samples.size(),
                     100 * result.gain());
}

void write_tuned_table(const std::filesystem::path& path, const Architecture& gpu,
                       const std::vector<TuningRecord>& records) {
  nlohmann::json table = {{"architecture", fmt::format("sm_{}", gpu.number())},
                          {"schedules", nlohmann::json::object()},
                          {"measured", nlohmann::json::object()}};
  if (std::filesystem::exists(path)) {
    const std::string text = support::read_file(path);
    (void)schedule::TunedTable::parse(text, path.string()); // throws where it is none
    nlohmann::json old = nlohmann::json::parse(text);
    if (old.at("architecture") != table.at("architecture"))
      throw Error(ErrorCode::cache_corrupt,
                  fmt::format("the table {} is for {}", path.string(), old.at("architecture").get<std::string>()),
                  fmt::format("a table for {} can be added to", table.at("architecture").get<std::string>()),
                  "choose another --output");
    table.update(old);
  }
  for (const TuningRecord& record : records) {
    const TuningResult& result = record.result;
    const std::string line = to_string(result.problem);
    table["schedules"][line] = to_string(result.trials[result.winner].schedule);
    table["measured"][line] = {{"call", record.call},
                               {"environment", record.environment},
                               {"rounds", result.rounds},
                               {"gain", result.gain()},
                               {"winner", statistics(result.trials[result.winner])},
                               {"default", statistics(result.trials[result.standard])}};
  }
  const std::string text = table.dump(1) + "\n";
  (void)schedule::TunedTable::parse(text, path.string());
  support::create_private_folder(path.has_parent_path() ? path.parent_path() : ".");
  write_output(path, text);
}

std::string tuning_svg(const TuningResult& result) {
  constexpr int row = 16, label = 560, plot = 560, margin = 24;
  const std::vector<const Trial*> trials = measured(result);
  double slowest = 0;
  for (const Trial* trial : trials)
    slowest = std::max(slowest, trial->times.upper);
  const double scale = slowest > 0 ? plot / slowest : 1;
  const int height = static_cast<int>(trials.size()) * row + 2 * margin;
  std::string svg = fmt::format("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" "
                                "font-family=\"sans-serif\" font-size=\"10\">\n"
                                "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"4\" y=\"14\">{}: "
                                "milliseconds, 0 to {:.4g}</text>\n",
                                label + plot + margin, height, to_string(result.problem), slowest);
  for (std::size_t index = 0; index < trials.size(); ++index) {
    const Trial& trial = *trials[index];
    const int top = margin + static_cast<int>(index) * row;
    const bool won = &trial == &result.trials[result.winner], standard = &trial == &result.trials[result.standard];
    const char* const colour = won ? "#2a7f3f" : standard ? "#1f5fa8" : "#999999";
    const auto x = [&](double milliseconds) { return label + milliseconds * scale; };
    svg += fmt::format("<text x=\"4\" y=\"{}\" fill=\"{}\">{}{}{}</text>\n", top + 11, colour,
                       short_name(trial.schedule), won ? " (winner)" : "", standard ? " (default)" : "");
    svg += fmt::format("<rect x=\"{}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\" opacity=\"0.3\"/>\n", label,
                       top + 3, trial.times.median * scale, row - 6, colour);
    svg +=
        fmt::format("<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"{}\" fill=\"{}\"/>\n", x(trial.times.lower),
                    top + 4, std::max(1.0, (trial.times.upper - trial.times.lower) * scale), row - 8, colour);
    svg += fmt::format("<line x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\" stroke=\"black\"/>\n",
                       x(trial.times.median), top + 2, top + row - 2);
  }
  return svg + "</svg>\n";
}

void write_tuning_report(const std::filesystem::path& folder, const std::vector<TuningRecord>& records) {
  support::create_private_folder(folder);
  std::string text = "# Tuning\n\nTimes are of one run with the L2 flushed, schedules interleaved in random order.\n\n";
  for (std::size_t index = 0; index < records.size(); ++index) {
    text += problem_section(records[index], index + 1);
    write_output(folder / fmt::format("tuning_{}.svg", index + 1), tuning_svg(records[index].result));
  }
  write_output(folder / "report.md", text);
}

} // namespace tilewright::tools
