#include <tilewright/tuner.hpp>

#include <algorithm>
#include <random>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "schedule/heuristic.hpp"
#include <tilewright/error.hpp>

namespace tilewright {
namespace {

using Clock = std::chrono::steady_clock;
using Outcome = Trial::Outcome;

class Tuning {
public:
  Tuning(TuningResult& result, TuningSubject& subject, const TuningOptions& options)
      : result_(result), subject_(subject), options_(options) {}

  void run() {
    for (std::size_t index = 0; index < result_.trials.size(); ++index)
      if (result_.trials[index].outcome == Outcome::measured)
        alive_.push_back(index);
    result_.standard = alive_.front();
    require_standard();
    each("checking", [&](std::size_t index) { check(trial(index)); });
    warm_up();
    each("first runs", [&](std::size_t index) { (void)subject_.milliseconds(trial(index).schedule), sample(index); });
    drop_hopeless_first_runs();
    measure_rounds();
    for (const std::size_t index : alive_)
      trial(index).times = quartiles(trial(index).samples);
    choose();
  }

private:
  Trial& trial(std::size_t index) { return result_.trials[index]; }

  /// Everything is compared with the default schedule: without it there is nothing to tune.
  void require_standard() {
    const Schedule& schedule = trial(result_.standard).schedule;
    subject_.prepare(schedule);
    if (!(subject_.difference(schedule) <= options_.largest_difference))
      throw Error(ErrorCode::internal,
                  fmt::format("the default schedule '{}' does not repeat its own result", to_string(schedule)),
                  "a kernel gives the same result each time", "report this as a fault of tilewright");
  }

  template <typename Action> void each(std::string_view stage, Action action) {
    std::size_t done = 0;
    const std::size_t total = alive_.size();
    std::erase_if(alive_, [&](std::size_t index) {
      action(index);
      if (options_.on_progress)
        options_.on_progress(stage, ++done, total);
      return trial(index).outcome != Outcome::measured;
    });
  }

  void check(Trial& tried) {
    try {
      subject_.prepare(tried.schedule);
      tried.difference = subject_.difference(tried.schedule);
    } catch (const Error& error) {
      tried.outcome = Outcome::failed;
      tried.reason = error.problem();
      return;
    }
    if (tried.difference <= options_.largest_difference) // false for NaN, too
      return;
    tried.outcome = Outcome::wrong;
    tried.reason = fmt::format("its result differs from the default's by {:.2e} (relative L2), {:.2e} is allowed",
                               tried.difference, options_.largest_difference);
  }

  void warm_up() {
    const auto end = Clock::now() + options_.warm_up;
    while (Clock::now() < end)
      (void)subject_.milliseconds(trial(result_.standard).schedule);
  }

  void sample(std::size_t index) { trial(index).samples.push_back(subject_.milliseconds(trial(index).schedule)); }

  void drop(std::size_t index, std::string reason) {
    trial(index).outcome = Outcome::hopeless;
    trial(index).reason = std::move(reason);
    trial(index).times = quartiles(trial(index).samples);
  }

  void drop_hopeless_first_runs() {
    double best = trial(alive_.front()).samples.front();
    for (const std::size_t index : alive_)
      best = std::min(best, trial(index).samples.front());
    std::erase_if(alive_, [&](std::size_t index) {
      const double first = trial(index).samples.front();
      if (index == result_.standard || first <= best * options_.hopeless)
        return false;
      drop(index, fmt::format("its first run took {:.2f} times the best's", first / best));
      return true;
    });
    for (const std::size_t index : alive_) // cold clocks and caches: not a fair sample
      trial(index).samples.clear();
  }

  void measure_rounds() {
    std::mt19937_64 random(options_.seed);
    const auto end = Clock::now() + options_.budget;
    for (result_.rounds = 0; result_.rounds < options_.rounds; ++result_.rounds) {
      if (result_.rounds >= options_.least_rounds && (Clock::now() >= end || alive_.size() == 1))
        break;
      std::vector<std::size_t> order = alive_;
      std::shuffle(order.begin(), order.end(), random);
      for (const std::size_t index : order)
        sample(index);
      if (result_.rounds + 1 >= options_.least_rounds)
        drop_those_behind();
      if (options_.on_progress)
        options_.on_progress("rounds", static_cast<std::size_t>(result_.rounds) + 1,
                             static_cast<std::size_t>(options_.rounds));
    }
  }

  /// Three quarters of its samples are slower than three quarters of the best's, and it is no tie.
  void drop_those_behind() {
    Quartiles best = quartiles(trial(alive_.front()).samples);
    for (const std::size_t index : alive_)
      if (const Quartiles times = quartiles(trial(index).samples); times.median < best.median)
        best = times;
    std::erase_if(alive_, [&](std::size_t index) {
      const Quartiles times = quartiles(trial(index).samples);
      constexpr double clearly = 3; // times the share of a tie
      if (index == result_.standard || times.lower <= best.upper ||
          times.median <= best.median * (1 + clearly * options_.tie))
        return false;
      drop(index, fmt::format("after {} rounds its median was {:.3f} times the best's", trial(index).samples.size(),
                              times.median / best.median));
      return true;
    });
  }

  /// The default stays unless somebody is clearly faster; among those who are as fast as the best, the first.
  void choose() {
    const Trial& standard = trial(result_.standard);
    double best = standard.times.median;
    for (const std::size_t index : alive_)
      best = std::min(best, trial(index).times.median);
    const auto chosen = std::find_if(alive_.begin(), alive_.end(), [&](std::size_t index) {
      return trial(index).times.median <= best * (1 + options_.tie);
    });
    const bool clearly_faster = trial(*chosen).times.upper < standard.times.lower;
    result_.winner = clearly_faster ? *chosen : result_.standard;
  }

  TuningResult& result_;
  TuningSubject& subject_;
  const TuningOptions& options_;
  std::vector<std::size_t> alive_; // in the order of candidates
};

} // namespace

Quartiles quartiles(std::vector<double> samples) {
  if (samples.empty())
    return {};
  std::sort(samples.begin(), samples.end());
  const auto at = [&](double share) { // between the two samples around the place, as most statistics programs do
    const double place = share * static_cast<double>(samples.size() - 1);
    const auto below = static_cast<std::size_t>(place);
    const std::size_t above = std::min(below + 1, samples.size() - 1);
    return samples[below] + (place - static_cast<double>(below)) * (samples[above] - samples[below]);
  };
  return {at(0.25), at(0.5), at(0.75)};
}

std::string_view to_string(Trial::Outcome outcome) noexcept {
  switch (outcome) {
  case Outcome::refused:
    return "refused";
  case Outcome::left_out:
    return "left out";
  case Outcome::failed:
    return "failed";
  case Outcome::wrong:
    return "wrong";
  case Outcome::hopeless:
    return "hopeless";
  case Outcome::measured:
    return "measured";
  }
  return "?";
}

double TuningResult::gain() const { return 1 - trials[winner].times.median / trials[standard].times.median; }

std::vector<Trial> tuning_candidates(const Problem& problem, const Architecture& gpu, const TuningOptions& options) {
  std::vector<Trial> trials;
  std::size_t able = 0;
  for (const auto& [schedule, refusals] : schedule::candidates(problem, gpu, options.family)) {
    Trial trial{.schedule = schedule, .outcome = Outcome::measured, .reason = {}, .samples = {}, .times = {}};
    if (!refusals.empty()) {
      trial.outcome = Outcome::refused;
      trial.reason = fmt::format("{}", fmt::join(refusals, "; "));
    } else if (++able > options.most_schedules) {
      trial.outcome = Outcome::left_out;
      trial.reason = fmt::format("only the first {} are tried", options.most_schedules);
    }
    trials.push_back(std::move(trial));
  }
  return trials;
}

TuningResult tune(const Problem& problem, const Architecture& gpu, TuningSubject& subject,
                  const TuningOptions& options) {
  (void)schedule::default_spec(problem, gpu, options.family); // throws, with every reason, where nothing can run
  TuningResult result{.problem = problem, .trials = tuning_candidates(problem, gpu, options)};
  Tuning(result, subject, options).run();
  return result;
}

} // namespace tilewright
