// Random problems in tests: one that fails is made smaller, and printed with the command that replays it.
#pragma once

#include <filesystem>
#include <string>

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "support_choices.hpp"
#include <tilewright/error.hpp>

namespace tilewright::testing {

/// Runs the test that is under way on the problem of these choices.
inline std::string replay_command(std::uint64_t seed, const ChoiceList& choices) {
  std::string name = doctest::getContextOptions()->currentTest->m_name;
  std::replace(name.begin(), name.end(), ',', '?'); // doctest takes a comma for the end of a name
  return fmt::format("TILEWRIGHT_CHOICES='{}:{}' {} --test-case='{}'", seed, to_string(choices),
                     std::filesystem::read_symlink("/proc/self/exe").string(), name);
}

/// What is wrong with the problem of a seed; empty where nothing is. make(const ChoiceList*) makes the problem, by the
/// seed alone where there is no list; check(problem) says what is wrong, or throws Error. attempts: how often a smaller
/// problem is tried.
template <class Make, class Check>
std::string check_shrinking(std::uint64_t seed, Make make, Check check, int attempts = 100) {
  const auto complaint_of = [&](const ChoiceList* list, ChoiceList& made) -> std::string {
    try {
      auto problem = make(list);
      made = problem.choices();
      return check(problem);
    } catch (const Error& error) {
      // A smaller problem that a schedule does not take does not fail as this one does.
      const bool refused = error.code() == ErrorCode::unsupported || error.code() == ErrorCode::invalid_argument;
      return list != nullptr && refused ? "" : error.what();
    }
  };
  ChoiceList choices;
  const std::string wrong = complaint_of(nullptr, choices);
  if (wrong.empty())
    return {};
  std::string smallest = wrong;
  choices = shrink(choices, attempts, [&](ChoiceList& list) {
    const std::string smaller = complaint_of(&list, list);
    if (!smaller.empty())
      smallest = smaller;
    return !smaller.empty();
  });
  return fmt::format("{}\n the smallest such problem that was found: {}\n to replay it: {}", wrong, smallest,
                     replay_command(seed, choices));
}

} // namespace tilewright::testing
