// The search itself, on made-up times.
#include <doctest/doctest.h>

#include <limits>
#include <map>
#include <random>
#include <string>

#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>
#include <tilewright/tuner.hpp>

using namespace tilewright;
using Outcome = Trial::Outcome;

namespace {

const Architecture gpu{8, 0, 0};

Problem problem() {
  return parse_problem("attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=0,edges=full,head_dim=64");
}

/// Times that a test sets, with noise of a few parts in a thousand, as a GPU's.
class MadeUp final : public TuningSubject {
public:
  std::map<std::string, double> times; // others take `usual`
  std::map<std::string, double> differences;
  std::string fails;
  double usual = 1, noise = 0.002;
  std::map<std::string, int> runs;

  void prepare(const Schedule& schedule) override {
    if (to_string(schedule) == fails)
      throw Error(ErrorCode::compile_failed, "it spills 16 bytes", "none", "none");
  }
  double difference(const Schedule& schedule) override {
    const auto found = differences.find(to_string(schedule));
    return found == differences.end() ? 1e-3 : found->second;
  }
  double milliseconds(const Schedule& schedule) override {
    ++runs[to_string(schedule)];
    const auto found = times.find(to_string(schedule));
    return (found == times.end() ? usual : found->second) * (1 + noise * normal_(random_));
  }

private:
  std::mt19937_64 random_{1};
  std::normal_distribution<double> normal_;
};

const TuningOptions quick{.warm_up = std::chrono::milliseconds(0)};

std::string able(std::size_t number) {
  for (const Trial& trial : tuning_candidates(problem(), gpu, quick))
    if (trial.outcome == Outcome::measured && number-- == 0)
      return to_string(trial.schedule);
  FAIL("there are fewer schedules");
  return "";
}

const Trial& trial_of(const TuningResult& result, const std::string& schedule) {
  for (const Trial& trial : result.trials)
    if (to_string(trial.schedule) == schedule)
      return trial;
  FAIL("there is no such trial");
  return result.trials.front();
}

std::string winner_of(const TuningResult& result) { return to_string(result.trials[result.winner].schedule); }

} // namespace

TEST_CASE("a schedule that is clearly faster wins, whatever the order of the rounds") {
  for (const std::uint64_t seed : {0U, 1U, 2U}) {
    MadeUp subject;
    subject.times[able(4)] = 0.9;
    TuningOptions options = quick;
    options.seed = seed;
    const TuningResult result = tune(problem(), gpu, subject, options);
    CHECK(winner_of(result) == able(4));
    CHECK(result.gain() == doctest::Approx(0.1).epsilon(0.05));
    CHECK(trial_of(result, able(4)).samples.size() == 30);
  }
}

TEST_CASE("what is within the noise of the default leaves the default") {
  MadeUp subject;
  subject.times[able(3)] = 0.995; // less than the share of a tie
  const TuningResult tie = tune(problem(), gpu, subject, quick);
  CHECK(tie.winner == tie.standard);
  CHECK(tie.gain() == 0);
  CHECK(winner_of(tie) == to_string(schedule::default_spec(problem(), gpu).schedule));

  MadeUp noisy; // 3 % faster, and every sample off by 10 %
  noisy.noise = 0.1;
  noisy.times[able(3)] = 0.97;
  CHECK(tune(problem(), gpu, noisy, quick).winner == tie.standard);
}

TEST_CASE("two tunings of the same machine agree, or differ by less than 3 %") {
  std::map<std::string, double> times;
  std::mt19937_64 random(7);
  for (std::size_t number = 0; number < 12; ++number)
    times[able(number)] = std::uniform_real_distribution<double>(0.9, 1.3)(random);
  MadeUp first, second;
  first.times = second.times = times;
  first.usual = second.usual = 1.4;
  for (int skipped = 0; skipped < 1000; ++skipped)
    (void)second.milliseconds({}); // other noise
  TuningOptions other = quick;
  other.seed = 99;
  const std::string one = winner_of(tune(problem(), gpu, first, quick)),
                    two = winner_of(tune(problem(), gpu, second, other));
  CHECK(times.at(one) / times.at(two) == doctest::Approx(1).epsilon(0.03));
}

TEST_CASE("wrong, failing and hopeless schedules are out, each with its reason") {
  MadeUp subject;
  subject.times[able(1)] = 0.1; // the fastest by far, and wrong
  subject.differences[able(1)] = 0.5;
  subject.times[able(2)] = 0.1; // the same, and an element was not written
  subject.differences[able(2)] = std::numeric_limits<double>::quiet_NaN();
  subject.fails = able(3);
  subject.times[able(5)] = 9;
  subject.times[able(6)] = 1.1; // not hopeless at once, but after the least rounds
  subject.times[able(7)] = 0.9;
  const TuningResult result = tune(problem(), gpu, subject, quick);
  CHECK(winner_of(result) == able(7));
  CHECK(trial_of(result, able(1)).outcome == Outcome::wrong);
  CHECK(trial_of(result, able(2)).outcome == Outcome::wrong);
  CHECK(subject.runs[able(1)] == 0);
  CHECK(trial_of(result, able(3)).outcome == Outcome::failed);
  CHECK(trial_of(result, able(3)).reason == "it spills 16 bytes");
  CHECK(trial_of(result, able(5)).outcome == Outcome::hopeless);
  CHECK(subject.runs[able(5)] == 2); // the first run and the one before it
  CHECK(trial_of(result, able(6)).outcome == Outcome::hopeless);
  CHECK(trial_of(result, able(6)).samples.size() == 5);
  std::size_t refused = 0;
  for (const Trial& trial : result.trials)
    if (trial.outcome == Outcome::refused) {
      ++refused;
      CHECK_FALSE(trial.reason.empty());
      CHECK(trial.samples.empty());
    }
  CHECK(refused > 0);
}

TEST_CASE("the budget ends the rounds, never before the least number of them") {
  MadeUp subject;
  TuningOptions options = quick;
  options.budget = std::chrono::milliseconds(0);
  CHECK(tune(problem(), gpu, subject, options).rounds == 5);
  options.most_schedules = 2;
  std::size_t tried = 0;
  for (const Trial& trial : tune(problem(), gpu, subject, options).trials)
    tried += trial.outcome == Outcome::left_out || trial.outcome == Outcome::refused ? 0U : 1U;
  CHECK(tried == 2);
}

TEST_CASE("what cannot be tuned is an error") {
  MadeUp subject;
  CHECK_THROWS_AS(tune(problem(), {7, 5, 0}, subject, quick), Error);
  CHECK_THROWS_AS(tune(parse_problem("attention_forward:pattern=dense"), gpu, subject, quick), Error);
  subject.fails = able(0); // the default: there is nothing to compare with
  CHECK_THROWS_AS(tune(problem(), gpu, subject, quick), Error);
  subject.fails.clear();
  subject.differences[able(0)] = 0.5; // it does not even repeat itself
  CHECK_THROWS_AS(tune(problem(), gpu, subject, quick), Error);
}

TEST_CASE("quartiles") {
  const Quartiles four = quartiles({4, 1, 3, 2});
  CHECK(four.lower == 1.75);
  CHECK(four.median == 2.5);
  CHECK(four.upper == 3.25);
  CHECK(quartiles({7}).upper == 7);
  CHECK(quartiles({}).median == 0);
}
