#include "tune_subject.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "reference/convert.hpp"
#include "reference/parallel.hpp"

namespace tilewright::tools {
namespace {

/// Every 16-bit element's value: looked up, because a video's result has some hundred million of them, for every
/// schedule.
std::vector<float> values_of(DataType type) {
  std::vector<float> table(std::size_t{1} << 16);
  for (std::size_t bits = 0; bits < table.size(); ++bits)
    table[bits] = static_cast<float>(reference::decode(type, static_cast<std::uint16_t>(bits)));
  return table;
}

/// The relative L2 difference of two results; NaN where an element is.
double relative_difference(std::span<const std::uint16_t> result, std::span<const std::uint16_t> expected,
                           const std::vector<float>& values) {
  constexpr std::size_t chunk = std::size_t{1} << 20;
  const std::size_t chunks = (result.size() + chunk - 1) / chunk;
  std::vector<double> squares(chunks), differences(chunks);
  reference::parallel_for(chunks, 0, [&](std::size_t item) {
    double chunk_squares = 0, chunk_differences = 0;
    for (std::size_t i = item * chunk; i < std::min(result.size(), (item + 1) * chunk); ++i) {
      const double wanted = values[expected[i]], difference = values[result[i]] - wanted;
      chunk_squares += wanted * wanted;
      chunk_differences += difference * difference;
    }
    squares[item] = chunk_squares;
    differences[item] = chunk_differences;
  });
  const double sum = std::accumulate(squares.begin(), squares.end(), 0.0);
  return sum > 0 ? std::sqrt(std::accumulate(differences.begin(), differences.end(), 0.0) / sum)
                 : std::numeric_limits<double>::quiet_NaN();
}

} // namespace

AttentionSubject::AttentionSubject(Device& device, AttentionInput& input, CacheOptions cache)
    : device_(device), input_(input), cache_(std::move(cache)), call_(device.place(input.call)),
      pattern_(device.place(input.relation.pattern)), problem_(Runtime::problem_of(call_, pattern_)),
      values_(values_of(problem_.dtype)), flush_(device) {}

Runtime& AttentionSubject::runtime(const Schedule& schedule) {
  const std::string name = to_string(schedule);
  if (const auto found = runtimes_.find(name); found != runtimes_.end())
    return found->second;
  RuntimeOptions options;
  options.schedule = schedule;
  options.cache = cache_;
  return runtimes_.emplace(name, Runtime(device_.executor(), std::move(options))).first->second;
}

void AttentionSubject::prepare(const Schedule& schedule) { runtime(schedule).prepare(problem_); }

double AttentionSubject::difference(const Schedule& schedule) {
  std::fill(input_.out.bytes.begin(), input_.out.bytes.end(), std::byte{0xFF}); // NaN: what is not written shows
  device_.refresh(call_.out, input_.call.out);
  runtime(schedule).attention_forward(call_, pattern_);
  device_.collect(call_.out, input_.call.out);
  const std::span<const std::uint16_t> result = input_.out.as<std::uint16_t>();
  if (expected_.empty())
    expected_.assign(result.begin(), result.end());
  return relative_difference(result, expected_, values_);
}

double AttentionSubject::milliseconds(const Schedule& schedule) {
  Runtime& kernel = runtime(schedule);
  flush_(); // enqueued just before: the GPU is busy while the host prepares the launch
  return device_.measure([&] { kernel.attention_forward(call_, pattern_); });
}

} // namespace tilewright::tools
