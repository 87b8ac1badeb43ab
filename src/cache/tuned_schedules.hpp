// Which tuned schedules hold for a process: those of its user, over those that the library ships.
#pragma once

#include <filesystem>

#include "schedule/tuned_table.hpp"
#include "support/messages.hpp"

namespace tilewright::cache {

/// The shipped table for this GPU, overlaid by sm_NN.json in $TILEWRIGHT_TUNED, else in tuned/ of the cache's folder
/// (as cache_folder() finds it). TILEWRIGHT_TUNED=none: neither, every problem runs with its default schedule. A user's
/// table that cannot be used, or that others may write to, costs a warning and nothing else.
schedule::TunedTable tuned_schedules(const Architecture& gpu, const std::filesystem::path& folder,
                                     const support::MessageCallback& on_message);

} // namespace tilewright::cache
