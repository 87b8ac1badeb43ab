#include "cache/tuned_schedules.hpp"

#include <fmt/format.h>

#include "cache/store.hpp"
#include "support/environment.hpp"
#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::cache {

schedule::TunedTable tuned_schedules(const Architecture& gpu, const std::filesystem::path& folder,
                                     const support::MessageCallback& on_message) {
  const auto named = support::environment("TILEWRIGHT_TUNED");
  if (named == "none")
    return {};
  schedule::TunedTable table = schedule::TunedTable::shipped(gpu);
  try {
    const auto users = named ? std::filesystem::path(*named) : cache_folder(folder) / "tuned";
    const auto path = users / fmt::format("sm_{}.json", gpu.number());
    const bool allow_shared = support::environment_flag("TILEWRIGHT_CACHE_ALLOW_SHARED");
    if (const auto file = support::read_own_file(path, allow_shared))
      table.overlay(schedule::TunedTable::parse(file->bytes, path.string()));
  } catch (const Error& error) {
    support::warn(on_message, error.problem(), "the schedules that the library ships are used",
                  "correct or remove the table; `tilewright tune` writes a new one");
  }
  return table;
}

} // namespace tilewright::cache
