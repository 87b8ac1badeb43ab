// Schedules that were found by measuring, for one architecture: cache/tuned/sm_90.json and a user's own.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule {

/// Problems and the schedules they run best with. Immutable after loading.
///
///     {"architecture": "sm_80",
///      "schedules": {"attention_forward:pattern=dense,edges=full,dtype=bf16,head_dim=128,layout=raster":
///                    "family=sm80,block_q=128,block_k=64,stages=1,warps=4,blocks_per_processor=2,softmax=online"}}
///
/// Other members ("measured", ...) are the tuner's own record. A problem whose line leaves text and edges open
/// speaks for all of its closed variants that have no line of their own.
class TunedTable {
public:
  TunedTable() = default;

  /// Reads the text of a table; name says in errors where it came from. Throws cache_corrupt where it is no such
  /// text, or has a problem, or a schedule that cannot run on its architecture.
  static TunedTable parse(std::string_view json, std::string_view name);

  /// The table for this GPU in a folder of tables; empty where the folder has none. Throws as parse().
  static TunedTable load(const std::filesystem::path& folder, const Architecture& gpu);

  /// The table that this library ships for this GPU; empty where there is none.
  static TunedTable shipped(const Architecture& gpu);

  /// Lays another table over this one: what both have is the other's.
  void overlay(const TunedTable& other);

  /// The schedule of a closed problem, none where the table has none.
  [[nodiscard]] std::optional<Schedule> find(const Problem& problem) const;

  [[nodiscard]] std::size_t size() const noexcept { return schedules_.size(); }

private:
  std::unordered_map<std::string, Schedule> schedules_; // by the problem's line
};

} // namespace tilewright::schedule
