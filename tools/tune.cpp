// tilewright tune: which schedule is the fastest here, measured; the winners go into a table that runtimes read.
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <thread>

#include <CLI/CLI.hpp>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "attention_input.hpp"
#include "cache/cache.hpp"
#include "cache/lock.hpp"
#include "cache/store.hpp"
#include "commands.hpp"
#include "device.hpp"
#include "driver/cuda_device.hpp"
#include "progress.hpp"
#include "schedule/heuristic.hpp"
#include "support/hash.hpp"
#include "table.hpp"
#include "tune_report.hpp"
#include "tune_subject.hpp"
#include "worker_pool.hpp"
#ifdef TILEWRIGHT_HAS_EMULATOR
#include <tilewright/emulator.hpp>
#endif

namespace tilewright::tools {
namespace {

struct TuneOptions {
  std::vector<std::string> problems;
  RandomShape shape;
  PatternChoice pattern;
  DeviceChoice device;
  TuningOptions tuning;
  double budget_seconds = 60;
  std::string family = "automatic", architecture;
  unsigned workers = std::max(1U, std::thread::hardware_concurrency());
  std::filesystem::path output, report;
  bool explain = false, json = false;
};

Family family_option(const std::string& text) {
  return text == "sm80" ? Family::sm80 : text == "sm90" ? Family::sm90 : Family::automatic;
}

/// Asked in a child, so that this process can still fork when it knows the answer: see run_in_processes().
Architecture gpu_architecture(const TuneOptions& options) {
  if (options.device.device == "emulator")
    return architectures_option(options.device.emulated).front();
  std::string answer;
  constexpr unsigned in_a_child = 2;
  run_in_processes(
      1, in_a_child,
      [&](std::size_t) -> std::string {
        try {
          return to_string(cuda::describe_device(cuda::open_api(), 0).architecture);
        } catch (const Error&) {
          return ""; // whoever opens the device says it better
        }
      },
      [&](std::size_t, const std::optional<std::string>& architecture) { answer = architecture.value_or(""); });
  if (!answer.empty())
    return parse_architecture(answer);
  const Device device(options.device); // throws no_device with what was looked for
  throw Error(ErrorCode::no_device, "the GPU could not be asked for its architecture", "a usable GPU is needed",
              "see `tilewright doctor`");
}

/// Every schedule's kernel into the cache, whatever becomes of it: those that fail say why when they are checked.
void compile_all(const TuneOptions& options, const Problem& problem, const Architecture& gpu) {
  std::vector<Schedule> schedules;
  for (const Trial& trial : tuning_candidates(problem, gpu, options.tuning))
    if (trial.outcome == Trial::Outcome::measured)
      schedules.push_back(trial.schedule);
  cache::KernelCache kernels(options.device.cache.options());
  Progress progress("compiling", schedules.size());
  run_in_processes(
      schedules.size(), options.workers,
      [&](std::size_t job) {
        try {
          const Spec spec = schedule::insisted_spec(problem, gpu, schedules[job]);
#ifdef TILEWRIGHT_HAS_EMULATOR
          if (options.device.device == "emulator") {
            EmulatorOptions emulator{.architecture = gpu};
            if (!options.device.cache.folder.empty())
              emulator.folder = options.device.cache.folder / "emulator";
            (void)make_emulator(emulator)->kernel(spec, nullptr);
            return std::string();
          }
#endif
          (void)kernels.get(spec);
        } catch (const Error&) {
        }
        return std::string();
      },
      [&](std::size_t, const std::optional<std::string>&) { progress.step(); });
}

/// What nvidia-smi says of clocks, temperature and driver; null without it.
nlohmann::json gpu_state(const Device& device) {
  if (!device.is_gpu())
    return nullptr;
  const std::string line =
      fmt::format("nvidia-smi -i {} --query-gpu=driver_version,clocks.sm,clocks.mem,temperature.gpu,power.draw "
                  "--format=csv,noheader,nounits 2>/dev/null",
                  device.gpu()->description().ordinal);
  std::FILE* const pipe = ::popen(line.c_str(), "r");
  if (pipe == nullptr)
    return nullptr;
  std::array<char, 256> text{};
  const bool got = std::fgets(text.data(), static_cast<int>(text.size()), pipe) != nullptr;
  ::pclose(pipe);
  std::array<char, 64> driver{};
  double processor = 0, memory = 0, temperature = 0, power = 0;
  if (!got || std::sscanf(text.data(), "%63[^,], %lf, %lf, %lf, %lf", driver.data(), &processor, &memory, &temperature,
                          &power) < 4)
    return nullptr;
  return {{"driver", driver.data()},
          {"processor_mhz", processor},
          {"memory_mhz", memory},
          {"celsius", temperature},
          {"watt", power}};
}

/// One process measures at a time, of this user on this machine.
class MeasuringAlone {
public:
  MeasuringAlone() {
    constexpr std::chrono::minutes patience{10};
    lock_.emplace(cache::lock_file(), measuring_lock, patience);
    if (lock_->state() == cache::NameLock::State::timed_out)
      throw Error(ErrorCode::unsupported, "another process has been measuring for 10 minutes",
                  "one process measures at a time", "wait for it, or end it");
  }

private:
  std::optional<cache::NameLock> lock_;
};

nlohmann::json call_of(const TuneOptions& options, const AttentionInput& input) {
  nlohmann::json call = {{"batch", options.shape.batch}, {"heads", input.heads()}};
  if (!options.pattern.canvas.empty())
    call["canvas"] = options.pattern.canvas;
  if (options.shape.tokens)
    call["tokens"] = *options.shape.tokens;
  if (options.pattern.topk)
    call["topk"] = *options.pattern.topk;
  if (options.pattern.text_length)
    call["text_length"] = *options.pattern.text_length;
  return call;
}

void explain(const std::vector<Trial>& trials) {
  Table table({"schedule", "verdict"});
  for (const Trial& trial : trials)
    table.add({to_string(trial.schedule), trial.reason.empty() ? "to be tried" : trial.reason});
  fmt::print("{}", table.text());
}

TuningRecord tune_one(const TuneOptions& options, const Problem& named, AttentionInput& input,
                      const Architecture& gpu) {
  Device device(options.device);
  AttentionSubject subject(device, input, options.device.cache.options());
  const MeasuringAlone alone;
  std::optional<Progress> progress;
  std::string stage;
  TuningOptions tuning = options.tuning;
  tuning.on_progress = [&](std::string_view now, std::size_t, std::size_t total) {
    if (now != stage) {
      stage = now;
      progress.emplace(stage, total);
    }
    progress->step();
  };
  TuningRecord record;
  record.call = call_of(options, input);
  const nlohmann::json before = gpu_state(device);
  record.result = tune(named, gpu, subject, tuning);
  record.environment = {{"device", device.name()}, {"before", before}, {"after", gpu_state(device)}};
  return record;
}

void print(const TuningRecord& record, bool json) {
  const TuningResult& result = record.result;
  std::size_t counts[6] = {};
  for (const Trial& trial : result.trials)
    ++counts[static_cast<std::size_t>(trial.outcome)];
  if (!json) {
    fmt::print("{}\n  {}\n  {} refused, {} left out, {} failed, {} wrong, {} hopeless, {} measured in {} rounds\n",
               to_string(result.problem), reason_for(result), counts[0], counts[1], counts[2], counts[3], counts[4],
               counts[5], result.rounds);
    return;
  }
  const auto times = [&](const Trial& trial) {
    return nlohmann::json{{"schedule", to_string(trial.schedule)},
                          {"median_ms", trial.times.median},
                          {"quartiles_ms", {trial.times.lower, trial.times.upper}}};
  };
  fmt::print("{}\n", nlohmann::json{{"problem", to_string(result.problem)},
                                    {"winner", times(result.trials[result.winner])},
                                    {"default", times(result.trials[result.standard])},
                                    {"gain", result.gain()},
                                    {"rounds", result.rounds},
                                    {"refused", counts[0]},
                                    {"left_out", counts[1]},
                                    {"failed", counts[2]},
                                    {"wrong", counts[3]},
                                    {"hopeless", counts[4]},
                                    {"measured", counts[5]},
                                    {"environment", record.environment}}
                         .dump());
}

void tune_command(TuneOptions options) {
  options.tuning.family = family_option(options.family);
  options.tuning.budget = std::chrono::milliseconds(static_cast<std::int64_t>(options.budget_seconds * 1e3));
  if (options.device.device == "emulator" && options.output.empty() && !options.explain)
    throw UsageError("--device emulator is given without --output",
                     "the emulator's times say nothing of a GPU, whose table they must not become",
                     "add --output tuned/sm_80.json; TILEWRIGHT_TUNED=tuned then uses it");
  std::optional<Architecture> gpu;
  if (options.explain && !options.architecture.empty())
    gpu = architectures_option(options.architecture).front();
  else
    gpu = gpu_architecture(options);
  std::vector<AttentionInput> inputs;
  std::vector<Problem> problems;
  for (const std::string& line : options.problems) {
    const Problem problem = problem_option(line);
    if (problem.op != Operator::attention_forward)
      throw UsageError(fmt::format("'{}' has no schedules to choose from as a whole", line),
                       "attention_forward problems can be tuned",
                       "tune its attention: attention_forward:pattern=block_list with the same tile");
    inputs.push_back(make_random_input(problem, options.shape, options.pattern));
    problems.push_back(Runtime::problem_of(inputs.back().call, inputs.back().relation.pattern));
  }
  if (options.explain) {
    for (const Problem& problem : problems)
      explain(tuning_candidates(problem, *gpu, options.tuning));
    return;
  }
  for (const Problem& problem : problems)
    compile_all(options, problem, *gpu);
  std::vector<TuningRecord> records;
  for (std::size_t index = 0; index < problems.size(); ++index) {
    records.push_back(tune_one(options, problems[index], inputs[index], *gpu));
    print(records.back(), options.json);
  }
  const auto table = options.output.empty() ? cache::cache_folder(options.device.cache.folder) / "tuned" /
                                                  fmt::format("sm_{}.json", gpu->number())
                                            : options.output;
  write_tuned_table(table, *gpu, records);
  if (!options.report.empty())
    write_tuning_report(options.report, records);
}

} // namespace

void add_tune(CLI::App& application) {
  auto* const command = application.add_subcommand("tune", "Find each problem's fastest schedule by measuring");
  const auto options = std::make_shared<TuneOptions>();
  options->device.device = "cuda"; // the emulator only where it is named: its times say nothing of a GPU
  command->add_option("problems", options->problems, "Problems' lines; the inputs decide what they leave open")
      ->required();
  command->add_option("--batch", options->shape.batch)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--heads", options->shape.heads)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--kv-heads", options->shape.kv_heads)->check(CLI::PositiveNumber);
  command->add_option("--tokens", options->shape.tokens, "Query tokens (dense)")->check(CLI::PositiveNumber);
  command->add_option("--key-tokens", options->shape.key_tokens)->check(CLI::PositiveNumber);
  command->add_option("--input-seed", options->shape.seed)->capture_default_str();
  command->add_option("--budget", options->budget_seconds, "Seconds of measuring for each problem")
      ->transform(CLI::AsNumberWithUnit(std::map<std::string, double>{{"s", 1}, {"min", 60}},
                                        CLI::AsNumberWithUnit::CASE_SENSITIVE, "TIME"))
      ->capture_default_str();
  command->add_option("--rounds", options->tuning.rounds)->check(CLI::PositiveNumber)->capture_default_str();
  command->add_option("--order-seed", options->tuning.seed, "Of the order within a round")->capture_default_str();
  command->add_option("--family", options->family)->check(CLI::IsMember({"automatic", "sm80", "sm90"}));
  command->add_option("--most-schedules", options->tuning.most_schedules, "Of those that can run, the first")
      ->check(CLI::PositiveNumber);
  command->add_option("--jobs", options->workers, "Processes that compile side by side")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command->add_option("--output", options->output, "The table (default: tuned/sm_NN.json in the cache's folder)");
  command->add_option("--report", options->report, "A folder for report.md and its plots");
  command->add_flag("--explain", options->explain, "Only show the schedules and the reasons against them");
  command->add_option("--arch", options->architecture, "With --explain: of another GPU");
  command->add_flag("--json", options->json, "One JSON object a line and problem");
  options->pattern.add_to(*command);
  options->device.add_to(*command);
  command->callback([options] { tune_command(*options); });
}

} // namespace tilewright::tools
