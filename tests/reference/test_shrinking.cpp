// A failing random problem is made smaller and printed with a command that replays it.
#include <doctest/doctest.h>

#include <cstdlib>
#include <string>

#include "support_random_problem.hpp"
#include "support_replay.hpp"

namespace tilewright::testing {
namespace {

constexpr RandomLimits limits{.max_tokens = 512, .max_text = 96, .max_flops = 2e7};

/// A planted bug: an implementation that forgets the last key where there are more than 130.
std::string forgets_a_key(RandomProblem& problem) {
  return problem.check([&](const AttentionForward& call, const Pattern& pattern) {
    reference::attention_forward_into(call, pattern);
    const std::size_t axis = call.layout == Layout::raster ? 1 : 2;
    if (std::holds_alternative<Dense>(pattern) && call.k.extents[axis] > 130) {
      AttentionForward shorter = call;
      --shorter.k.extents[axis];
      --shorter.v.extents[axis];
      reference::attention_forward_into(shorter, pattern);
    }
  });
}

std::string part_after(const std::string& text, const std::string& mark) {
  const std::size_t at = text.find(mark);
  REQUIRE(at != std::string::npos);
  return text.substr(at + mark.size(), text.find('\n', at + mark.size()) - at - mark.size());
}

struct Replayed {
  explicit Replayed(const std::string& choices) { ::setenv("TILEWRIGHT_CHOICES", choices.c_str(), 1); }
  ~Replayed() { ::unsetenv("TILEWRIGHT_CHOICES"); }
  Replayed(const Replayed&) = delete;
  Replayed& operator=(const Replayed&) = delete;
};

} // namespace

TEST_CASE("choices are written and read back") {
  for (const ChoiceList& choices : {ChoiceList{}, {0}, {7}, {3, 0, 0, 0, 1, 1, 12}, {5, 5}})
    CHECK(parse_choices(to_string(choices)) == choices);
  CHECK(to_string(ChoiceList{3, 0, 0, 0, 1}) == "3,0*3,1");
}

TEST_CASE("a list is shrunk to the least one that fails") {
  ChoiceList least = shrink({9, 8, 300, 7, 40, 2}, 1000, [](const ChoiceList& list) {
    return list.size() > 2 && list[2] >= 17; // a problem whose third choice is too large
  });
  CHECK(least == ChoiceList{0, 0, 17});
  least = shrink({1, 2, 3}, 1000, [](const ChoiceList&) { return true; });
  CHECK(least.empty());
  least = shrink({1, 2, 3}, 1000, [](const ChoiceList&) { return false; });
  CHECK(least == ChoiceList{1, 2, 3});
}

TEST_CASE("the same choices make the same problem") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    RandomProblem drawn(seed, limits);
    const ChoiceList choices = drawn.choices();
    RandomProblem again(seed, limits, &choices);
    CHECK(again.description() == drawn.description());
    auto tensor = again.tensors().begin();
    for (const HostTensor& original : drawn.tensors()) {
      REQUIRE(tensor->allocation_bytes() == original.allocation_bytes());
      CHECK(std::memcmp(tensor->allocation(), original.allocation(), original.allocation_bytes()) == 0);
      ++tensor;
    }
  }
}

TEST_CASE("a planted failure is shrunk to a small problem, and its command replays it") {
  int failures = 0;
  for (std::uint64_t seed = 0; seed < 40 && failures < 3; ++seed) {
    const auto make = [&](const ChoiceList* list) { return RandomProblem(seed, limits, list); };
    const std::string wrong = check_shrinking(seed, make, forgets_a_key);
    if (wrong.empty())
      continue;
    ++failures;
    CAPTURE(wrong);
    const std::string smallest = part_after(wrong, "the smallest such problem that was found: ");
    // Lengths are whole key blocks where a choice is 0.
    CHECK(smallest.find("head_dim=64,layout=raster batch=1 heads=1/1 queries=64 keys=192") != std::string::npos);
    const std::string command = part_after(wrong, "to replay it: ");
    CHECK(command.find("--test-case='a planted failure is shrunk to a small problem? and its command replays it'") !=
          std::string::npos);
    const Replayed replayed(
        command.substr(command.find('\'') + 1, command.find('\'', command.find('\'') + 1) - command.find('\'') - 1));
    RandomProblem problem = make(nullptr);
    const std::string again = forgets_a_key(problem);
    CHECK(again.substr(0, again.find('\n')) == smallest);
  }
  CHECK(failures == 3);
}

} // namespace tilewright::testing
