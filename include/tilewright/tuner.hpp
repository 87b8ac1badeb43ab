// The tuner: which schedule computes a problem fastest, decided by measuring.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include <tilewright/problem.hpp>
#include <tilewright/schedule.hpp>

namespace tilewright {

/// One call with fixed inputs, computed with one schedule or another: what a tuner measures. Implemented by whoever
/// owns the tensors; all functions are called from one thread, one after the other.
class TuningSubject {
public:
  virtual ~TuningSubject() = default;
  /// Compiles and loads. What it throws is the reason why the schedule is out.
  virtual void prepare(const Schedule& schedule) = 0;
  /// Computes, and gives the relative L2 difference from the first schedule's result that was asked for, which is the
  /// default's; NaN where an element was not written.
  virtual double difference(const Schedule& schedule) = 0;
  /// Milliseconds of one run that finds nothing of its inputs in the caches.
  virtual double milliseconds(const Schedule& schedule) = 0;
};

struct TuningOptions {
  std::chrono::milliseconds budget{60'000}; // of measuring; at least `least_rounds` are run
  std::chrono::milliseconds warm_up{300};   // of the default schedule, before anything is measured
  int rounds = 30, least_rounds = 5;        // measurements of each schedule
  double tie = 0.01;                        // medians that differ by this share or less are the same
  double hopeless = 1.25;                   // times the best's first measurement: not measured again
  double largest_difference = 1e-2;         // relative L2, from the default's result
  std::uint64_t seed = 0;                   // of the order within a round
  Family family = Family::automatic;        // only this family's schedules
  std::size_t most_schedules = SIZE_MAX;    // of those that can run; the first in the order of candidates
  std::function<void(std::string_view stage, std::size_t done, std::size_t total)> on_progress{};
};

struct Quartiles {
  double lower = 0, median = 0, upper = 0;
};
Quartiles quartiles(std::vector<double> samples);

struct Trial {
  enum class Outcome : std::uint8_t {
    refused,  // it cannot run: shared memory, registers, shape
    left_out, // beyond most_schedules
    failed,   // it did not compile (a spill, for example) or load
    wrong,    // its result differs from the default's
    hopeless, // too slow to be measured to the end
    measured
  };
  Schedule schedule;
  Outcome outcome = Outcome::refused;
  std::string reason; // why it is not measured to the end
  double difference = 0;
  std::vector<double> samples; // milliseconds
  Quartiles times;             // of the samples
};
std::string_view to_string(Trial::Outcome outcome) noexcept;

struct TuningResult {
  Problem problem;
  std::vector<Trial> trials; // in the order of candidates: the best guess first
  std::size_t standard = 0;  // index of the default schedule's trial
  /// The first trial whose median is within `tie` of the best, where three quarters of its samples are faster than
  /// three quarters of the default's; else the default.
  std::size_t winner = 0;
  int rounds = 0;
  [[nodiscard]] double gain() const; // of the winner over the default: 0.05 is 5 % less time
};

/// The schedules worth trying for a closed problem, and the reasons against those that cannot run: nothing is compiled.
std::vector<Trial> tuning_candidates(const Problem& problem, const Architecture& gpu, const TuningOptions& options);

/// Measures them: correctness first, then one run each, then rounds in random order over those that are left; whoever
/// falls hopelessly behind is dropped. Throws unsupported where no schedule can run, and whatever the default schedule
/// fails with.
TuningResult tune(const Problem& problem, const Architecture& gpu, TuningSubject& subject,
                  const TuningOptions& options = {});

} // namespace tilewright
