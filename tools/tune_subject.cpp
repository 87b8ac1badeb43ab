#include "tune_subject.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/convert.hpp"

namespace tilewright::tools {
namespace {

/// Decoded by looking up, because a video's result has some hundred million elements, for every schedule.
std::vector<float> decoded(const HostTensor& tensor, DataType type) {
  constexpr std::size_t all_patterns = std::size_t{1} << 16;
  std::vector<float> table(all_patterns);
  for (std::size_t bits = 0; bits < all_patterns; ++bits)
    table[bits] = static_cast<float>(reference::decode(type, static_cast<std::uint16_t>(bits)));
  const std::span<const std::uint16_t> elements = tensor.as<std::uint16_t>();
  std::vector<float> values(elements.size());
  std::transform(elements.begin(), elements.end(), values.begin(), [&](std::uint16_t bits) { return table[bits]; });
  return values;
}

} // namespace

AttentionSubject::AttentionSubject(Device& device, AttentionInput& input, CacheOptions cache)
    : device_(device), input_(input), cache_(std::move(cache)), call_(device.place(input.call)),
      pattern_(device.place(input.relation.pattern)), problem_(Runtime::problem_of(call_, pattern_)), flush_(device) {}

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
  std::vector<float> result = decoded(input_.out, problem_.dtype);
  if (expected_.empty())
    expected_ = result;
  double squares = 0, differences = 0;
  for (std::size_t index = 0; index < result.size(); ++index) {
    const double expected = expected_[index], difference = result[index] - expected;
    squares += expected * expected;
    differences += difference * difference;
  }
  return squares > 0 ? std::sqrt(differences / squares) : std::numeric_limits<double>::quiet_NaN();
}

double AttentionSubject::milliseconds(const Schedule& schedule) {
  Runtime& kernel = runtime(schedule);
  flush_(); // enqueued just before: the GPU is busy while the host prepares the launch
  return device_.measure([&] { kernel.attention_forward(call_, pattern_); });
}

} // namespace tilewright::tools
