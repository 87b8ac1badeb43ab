// The choices that a random problem is made of, and how they are made smaller where the problem fails.
//
// A problem is drawn from a list of numbers, each between 0 and what is possible at its place. Where it is drawn anew
// from a shorter list or from smaller numbers, the problem is a simpler one: least extents, first alternatives. So a
// shrinker needs to know nothing of problems (after MacIver and Donaldson 2020, "Test-case reduction via test-case
// generation: insights from the Hypothesis reducer").
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>

namespace tilewright::testing {

using ChoiceList = std::vector<std::uint64_t>;

/// "3,0*12,1": a number, or a number and how often.
inline std::string to_string(const ChoiceList& choices) {
  std::string text;
  for (std::size_t i = 0, end = 0; i < choices.size(); i = end) {
    while (end < choices.size() && choices[end] == choices[i])
      ++end;
    text += (i == 0 ? "" : ",") + std::to_string(choices[i]);
    if (end - i > 1)
      text += "*" + std::to_string(end - i);
  }
  return text;
}

inline ChoiceList parse_choices(std::string_view text) {
  ChoiceList choices;
  while (!text.empty()) {
    const std::string part(text.substr(0, text.find(',')));
    text.remove_prefix(std::min(part.size() + 1, text.size()));
    const std::size_t star = part.find('*');
    const std::size_t count = star == std::string::npos ? 1 : std::stoull(part.substr(star + 1));
    choices.insert(choices.end(), count, std::stoull(part));
  }
  return choices;
}

/// Choices of a generator, or of a list: behind its end, 0. Numbers that are not choices come from the generator too,
/// the same ones where all choices are the same.
class Choices {
public:
  /// list: nullptr for the generator's, unless TILEWRIGHT_CHOICES=SEED:LIST names this seed.
  explicit Choices(std::uint64_t seed, const ChoiceList* list = nullptr) : generator_(seed) {
    const char* const named = std::getenv("TILEWRIGHT_CHOICES");
    const std::string prefix = std::to_string(seed) + ":";
    if (list != nullptr)
      listed_ = *list;
    else if (named != nullptr && std::string_view(named).starts_with(prefix))
      listed_ = parse_choices(std::string_view(named).substr(prefix.size()));
    else
      free_ = true;
  }

  std::int64_t integer(std::int64_t least, std::int64_t most) {
    const auto possible = static_cast<std::uint64_t>(most - least + 1);
    std::uint64_t choice = generator_() % possible;
    if (!free_)
      choice = made_.size() < listed_.size() ? std::min(listed_[made_.size()], possible - 1) : 0;
    made_.push_back(choice);
    return least + static_cast<std::int64_t>(choice);
  }

  [[nodiscard]] std::mt19937_64& generator() noexcept { return generator_; }

  /// What has been chosen, without the zeros at the end.
  [[nodiscard]] ChoiceList made() const {
    ChoiceList choices = made_;
    while (!choices.empty() && choices.back() == 0)
      choices.pop_back();
    return choices;
  }

private:
  std::mt19937_64 generator_;
  bool free_ = false;
  ChoiceList listed_, made_;
};

/// Shorter first, then smaller from the front on.
inline bool simpler(const ChoiceList& a, const ChoiceList& b) {
  return a.size() != b.size() ? a.size() < b.size() : a < b;
}

/// A list that still fails and that no single step makes simpler, or what `attempts` attempts come to. attempt(list)
/// makes the problem of a list and says whether it fails; it may replace the list by what was chosen in fact.
template <class Attempt> ChoiceList shrink(ChoiceList best, int attempts, Attempt attempt) {
  const auto improves = [&](ChoiceList candidate) {
    while (!candidate.empty() && candidate.back() == 0)
      candidate.pop_back();
    if (!simpler(candidate, best) || attempts-- <= 0 || !attempt(candidate) || !simpler(candidate, best))
      return false;
    best = std::move(candidate);
    return true;
  };
  const auto changed = [&](std::size_t at, std::uint64_t value) {
    ChoiceList candidate = best;
    candidate[at] = value;
    return candidate;
  };
  for (bool any = true; any && attempts > 0;) {
    any = false;
    for (std::size_t length = std::max<std::size_t>(best.size() / 2, 1); length > 0; length /= 2)
      for (std::size_t at = 0; at + length <= best.size() && attempts > 0;) {
        ChoiceList without = best, zeros = best;
        const auto first = static_cast<std::ptrdiff_t>(at), last = static_cast<std::ptrdiff_t>(at + length);
        std::fill(zeros.begin() + first, zeros.begin() + last, 0);
        without.erase(without.begin() + first, without.begin() + last);
        if (improves(std::move(zeros)) || improves(std::move(without)))
          any = true;
        else
          at += length;
      }
    for (std::size_t at = 0; at < best.size() && attempts > 0; ++at)
      for (std::uint64_t step = best[at]; at < best.size() && step > 0; step = std::min(step / 2, best[at]))
        while (at < best.size() && best[at] >= step && improves(changed(at, best[at] - step)))
          any = true;
  }
  return best;
}

} // namespace tilewright::testing
