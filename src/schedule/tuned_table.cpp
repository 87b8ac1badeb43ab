#include "schedule/tuned_table.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include "schedule/feasibility.hpp"
#include "schedule/shipped_tables.hpp"
#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::schedule {
namespace {

[[noreturn]] void refuse(std::string_view name, std::string_view wrong, std::string_view allowed) {
  throw Error(ErrorCode::cache_corrupt, fmt::format("tuned table {}: {}", name, wrong), std::string(allowed),
              "correct the table, or remove it to run with the defaults");
}

std::string file_name(const Architecture& gpu) { return fmt::format("sm_{}.json", gpu.number()); }

Schedule checked_schedule(const Problem& problem, const Schedule& schedule, const Architecture& architecture,
                          std::string_view name) {
  for (const Problem& variant : closed_variants(problem))
    if (const auto reasons = reasons_against(variant, schedule, architecture); !reasons.empty())
      refuse(name, fmt::format("'{}' cannot run with '{}'", to_string(variant), to_string(schedule)),
             fmt::format("{}", fmt::join(reasons, "; ")));
  return schedule;
}

} // namespace

TunedTable TunedTable::parse(std::string_view json, std::string_view name) {
  TunedTable table;
  try {
    const auto root = nlohmann::json::parse(json);
    const Architecture architecture = parse_architecture(root.at("architecture").get<std::string>());
    for (const auto& [line, text] : root.at("schedules").items()) {
      const Problem problem = parse_problem(line);
      const Schedule schedule = parse_schedule(text.get<std::string>());
      table.schedules_.insert_or_assign(to_string(problem), checked_schedule(problem, schedule, architecture, name));
    }
  } catch (const nlohmann::json::exception& error) {
    refuse(name, error.what(), R"(an object {"architecture": ..., "schedules": {problem: schedule, ...}} is allowed)");
  } catch (const Error& error) {
    if (error.code() == ErrorCode::cache_corrupt)
      throw;
    refuse(name, error.problem(), error.allowed());
  }
  return table;
}

TunedTable TunedTable::load(const std::filesystem::path& folder, const Architecture& gpu) {
  const auto path = folder / file_name(gpu);
  if (!std::filesystem::exists(path))
    return {};
  return parse(support::read_file(path), path.string());
}

TunedTable TunedTable::shipped(const Architecture& gpu) {
  const std::string wanted = file_name(gpu);
  for (std::size_t index = 0; index < shipped_table_count; ++index)
    if (shipped_tables[index].name == wanted)
      return parse(shipped_tables[index].text, "of this library, " + wanted);
  return {};
}

void TunedTable::overlay(const TunedTable& other) {
  for (const auto& [line, schedule] : other.schedules_)
    schedules_.insert_or_assign(line, schedule);
}

std::optional<Schedule> TunedTable::find(const Problem& problem) const {
  Problem open = problem;
  open.edges = Edges::open;
  if (problem.pattern == PatternKind::sliding_tile)
    open.text = Text::open;
  for (const Problem& key : {problem, open})
    if (const auto entry = schedules_.find(to_string(key)); entry != schedules_.end())
      return entry->second;
  return std::nullopt;
}

} // namespace tilewright::schedule
