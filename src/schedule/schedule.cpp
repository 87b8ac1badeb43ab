#include <tilewright/schedule.hpp>

#include <limits>

#include <fmt/format.h>

#include "problem/fields.hpp"

namespace tilewright {
namespace {

using problem::name_of;
using problem::Named;

constexpr Named<Family> families[] = {{Family::automatic, "automatic"}, {Family::sm80, "sm80"}, {Family::sm90, "sm90"}};
constexpr Named<Softmax> softmaxes[] = {
    {Softmax::online, "online"}, {Softmax::lazy, "lazy"}, {Softmax::fixed, "fixed"}};

/// Calls visit(name, number) for every number of the schedule, in the order of its text form.
template <typename AnySchedule, typename Visit> void for_each_number(AnySchedule& schedule, Visit visit) {
  visit("block_q", schedule.block_q);
  visit("block_k", schedule.block_k);
  visit("stages", schedule.stages);
  visit("warps", schedule.warps);
  visit("blocks_per_processor", schedule.blocks_per_processor);
  visit("consumers", schedule.consumers);
  visit("consumer_registers", schedule.consumer_registers);
  visit("producer_registers", schedule.producer_registers);
  visit("cluster", schedule.cluster);
  visit("overlap", schedule.overlap);
}

constexpr std::string_view field_names[] = {"family",
                                            "block_q",
                                            "block_k",
                                            "stages",
                                            "warps",
                                            "blocks_per_processor",
                                            "consumers",
                                            "consumer_registers",
                                            "producer_registers",
                                            "cluster",
                                            "overlap",
                                            "softmax"};

} // namespace

std::string_view to_string(Family family) noexcept { return name_of(families, family); }

std::string to_string(const Schedule& schedule) {
  std::string text = fmt::format("family={}", to_string(schedule.family));
  for_each_number(schedule, [&](std::string_view name, auto number) {
    if (number != 0)
      text += fmt::format(",{}={}", name, static_cast<int>(number));
  });
  return text + fmt::format(",softmax={}", name_of(softmaxes, schedule.softmax));
}

Schedule parse_schedule(std::string_view text) {
  const problem::Fields fields("schedule", text, field_names);
  Schedule schedule;
  schedule.family = fields.choice("family", Family::automatic, families);
  schedule.softmax = fields.choice("softmax", Softmax::online, softmaxes);
  for_each_number(schedule, [&](std::string_view name, auto& number) {
    using Number = std::remove_reference_t<decltype(number)>;
    number = static_cast<Number>(fields.integer(name, 0, 0, std::numeric_limits<Number>::max()));
  });
  return schedule;
}

std::string to_string(const Spec& spec) {
  return fmt::format("{}@{}/{}", to_string(spec.problem), to_string(spec.architecture), to_string(spec.schedule));
}

} // namespace tilewright
