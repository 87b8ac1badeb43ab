// Every default forward kernel x pattern x type x head size x layout in the emulator under eight seeds, against the
// float64 reference. (The backward kernels and video sparse attention: in their own tests.)
#include <doctest/doctest.h>

#include <string>

#include "kernels/forms.hpp"
#include "support_replay.hpp"
#include "support_seeds.hpp"
#include <tilewright/runtime.hpp>

using namespace tilewright;

namespace {

/// What is wrong under any of the seeds; empty where nothing is.
std::string check(const Architecture& architecture, const testing::AttentionForm& form) {
  const auto make = [&](const testing::ChoiceList* list) {
    return testing::RandomProblem(form.seed, form.limits, list);
  };
  return testing::check_shrinking(form.seed, make, [&](testing::RandomProblem& problem) {
    return testing::complaint_under_seeds(architecture, [&](std::shared_ptr<Executor> executor) {
      Runtime runtime(std::move(executor));
      return problem.check(
          [&](const AttentionForward& call, const Pattern& pattern) { runtime.attention_forward(call, pattern); });
    });
  });
}

void check_all(const Architecture& architecture) {
  for (const testing::AttentionForm& form : testing::forward_forms(architecture))
    CHECK(check(architecture, form) == "");
}

} // namespace

TEST_CASE("every default sm_80 kernel under eight seeds") { check_all({8, 0, 0}); }
TEST_CASE("every default Hopper kernel under eight seeds") { check_all({9, 0, 'a'}); }
