#include "codegen/config.hpp"

#include <fmt/format.h>

#include "schedule/feasibility.hpp"
#include "schedule/hopper.hpp"
#include "schedule/tile_kernels.hpp"

namespace tilewright::codegen {
namespace {

class Constants {
public:
  void integer(std::string_view name, std::int64_t value) { add(name, "constexpr int {} = {};", value); }
  void boolean(std::string_view name, bool value) { add(name, "constexpr bool {} = {};", value); }
  void type(std::string_view name, std::string_view value) { add(name, "using {} = {};", value); }

  void extent(std::string_view name, const Extent3& value) {
    integer(fmt::format("{}_t", name), value.t);
    integer(fmt::format("{}_h", name), value.h);
    integer(fmt::format("{}_w", name), value.w);
  }

  std::vector<Constant> take() { return std::move(constants_); }

private:
  template <class Value>
  void add(std::string_view name, fmt::format_string<std::string_view, Value> form, Value value) {
    constants_.push_back({std::string(name), fmt::format(form, std::string_view(name), Value(value))});
  }

  std::vector<Constant> constants_;
};

void add_problem(Constants& constants, const Spec& spec) {
  const Problem& problem = spec.problem;
  const bool dense = problem.pattern == PatternKind::dense;
  // A dense problem has no tiles of its own: its sequence is cut into blocks.
  constants.extent("tile", dense ? Extent3{1, 1, spec.schedule.block_q} : problem.tile);
  constants.extent("key_tile", dense ? Extent3{1, 1, spec.schedule.block_k} : problem.key_tile);
  constants.type("Element", problem.dtype == DataType::bf16 ? "BFloat16" : "Float16");
  constants.integer("head_dim", problem.head_dim);
  constants.boolean("layout_tiled", problem.layout == Layout::tiled);
  constants.boolean("dense", dense);
  constants.boolean("text", problem.text == Text::present);
  constants.boolean("edges_full", problem.edges == Edges::full);
  if (problem.op == Operator::attention_forward) {
    constants.boolean("blend", problem.blend != Blend::none);
    constants.boolean("blend_gated", problem.blend == Blend::gated);
  }
  if (problem.pattern == PatternKind::block_list) {
    constants.boolean("edges_sized", problem.edges == Edges::sized);
  }
  if (problem.pattern == PatternKind::sliding_tile) {
    constants.boolean("window_per_head", problem.window == Extent3{});
    constants.extent("window", problem.window);
  }
}

/// The constants of the backward kernels.
void add_backward_schedule(Constants& constants, const Spec& spec) {
  const Schedule& schedule = spec.schedule;
  constants.integer("block_q", schedule.block_q);
  constants.integer("block_k", schedule.block_k);
  if (schedule.family == Family::sm80) {
    constants.integer("warps", schedule.warps);
    constants.integer("blocks_per_processor", schedule.blocks_per_processor);
  } else {
    constants.integer("consumers", schedule.consumers);
    constants.integer("consumer_registers", schedule.consumer_registers);
    constants.integer("producer_registers", schedule.producer_registers);
    constants.integer("blocks_per_processor", schedule.blocks_per_processor);
  }
  if (spec.problem.op == Operator::attention_backward_delta) {
    return; // no shared memory
  }
  constants.integer("stages", schedule.stages);
  constants.integer("shared_bytes", schedule::shared_memory_bytes(spec.problem, schedule));
}

void add_schedule(Constants& constants, const Spec& spec) {
  const Schedule& schedule = spec.schedule;
  constants.integer("block_q", schedule.block_q);
  constants.integer("block_k", schedule.block_k);
  constants.integer("stages", schedule.stages);
  constants.integer("shared_bytes", schedule::shared_memory_bytes(spec.problem, schedule));
  switch (schedule.family) {
  case Family::sm80:
    constants.integer("warps", schedule.warps);
    constants.integer("blocks_per_processor", schedule.blocks_per_processor);
    constants.boolean("softmax_lazy", schedule.softmax == Softmax::lazy);
    break;
  case Family::sm90:
    constants.integer("consumers", schedule.consumers);
    constants.integer("consumer_registers", schedule.consumer_registers);
    constants.integer("producer_registers", schedule.producer_registers);
    constants.integer("query_columns_in_registers",
                      schedule::hopper::query_columns_in_registers(spec.problem, schedule));
    constants.integer("cluster", schedule.cluster);
    constants.boolean("overlap", schedule.overlap != 0);
    constants.integer("blocks_per_processor", schedule.blocks_per_processor);
    constants.boolean("softmax_lazy", schedule.softmax == Softmax::lazy);
    constants.boolean("softmax_fixed", schedule.softmax == Softmax::fixed);
    break;
  case Family::automatic:
    break; // refused before: a spec names its family
  }
}

/// The kernels that work on tiles as a whole: what each of them asks for.
void add_tile_kernel(Constants& constants, const Spec& spec) {
  const Problem& problem = spec.problem;
  const Schedule& schedule = spec.schedule;
  constants.integer("warps", schedule.warps);
  constants.integer("blocks_per_processor", schedule.blocks_per_processor);
  if (problem.op == Operator::transpose_lists) {
    constants.integer("block_k", schedule.block_k);
    return;
  }
  if (problem.op == Operator::list_mask)
    return;
  constants.type("Element", problem.dtype == DataType::bf16 ? "BFloat16" : "Float16");
  constants.integer("head_dim", problem.head_dim);
  if (problem.op == Operator::select_tiles) {
    constants.integer("block_q", schedule.block_q);
    constants.integer("shared_bytes", schedule::shared_memory_bytes(problem, schedule));
    return;
  }
  if (schedule::tile_kernels::is_coarse_backward(problem.op)) {
    constants.integer("block_q", schedule.block_q);
    constants.integer("block_k", schedule.block_k);
    constants.integer("stages", schedule.stages);
    constants.integer("shared_bytes", schedule::shared_memory_bytes(problem, schedule));
    return;
  }
  if (problem.op == Operator::blend_backward)
    constants.boolean("blend_gated", problem.blend == Blend::gated);
  constants.extent("tile", problem.tile);
  constants.extent("key_tile", problem.key_tile);
  constants.boolean("layout_tiled", problem.layout == Layout::tiled);
  constants.boolean("dense", false);
  constants.boolean("text", false);
  constants.boolean("edges_full", problem.edges == Edges::full);
  constants.boolean("edges_sized", problem.edges == Edges::sized);
}

} // namespace

std::vector<Constant> constants_of(const Spec& spec) {
  Constants constants;
  if (spec.problem.op == Operator::attention_forward) {
    add_problem(constants, spec);
    add_schedule(constants, spec);
  } else if (is_backward(spec.problem.op)) {
    add_problem(constants, spec);
    add_backward_schedule(constants, spec);
  } else {
    add_tile_kernel(constants, spec);
  }
  return constants.take();
}

std::string render_config(const Spec& spec, const std::vector<Constant>& constants) {
  std::string text = fmt::format(
      "// {}\n#pragma once\n\n#include \"device/element.cuh\"\n\nnamespace tilewright::config {{\n", to_string(spec));
  for (const Constant& constant : constants) {
    text += constant.declaration;
    text += '\n';
  }
  return text + "} // namespace tilewright::config\n";
}

} // namespace tilewright::codegen
