// Which schedule a problem runs with, and which ones a tuner should try.
#pragma once

#include <string>
#include <vector>

#include "schedule/tuned_table.hpp"
#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright::schedule {

struct Candidate {
  Schedule schedule;
  std::vector<std::string> refusals; // empty: it can run
};

/// Every schedule worth trying for a closed problem on a GPU, always in the same order: the best guess first, and
/// the fastest family first where the family is automatic. Those that cannot run are there too, with the reasons.
std::vector<Candidate> candidates(const Problem& problem, const Architecture& gpu, Family family = Family::automatic);

/// The problem with the schedule that the table has for it, else with the first candidate that can run. The spec's
/// architecture is the family's target for this GPU. Throws invalid_argument where the problem is not closed, and
/// unsupported, with the reasons against every candidate, where none can run.
Spec default_spec(const Problem& problem, const Architecture& gpu, Family family = Family::automatic,
                  const TunedTable* tuned = nullptr);

/// The problem with this very schedule. Throws invalid_argument where the problem is not closed, and unsupported with
/// the reasons where it cannot run.
Spec insisted_spec(const Problem& problem, const Architecture& gpu, const Schedule& schedule);

} // namespace tilewright::schedule
