// The problems on which the tests of the emulated kernels run every form that a kernel has, as seeds and limits of
// random problems. test_counters.cpp takes a part of the same ones, so that their kernels are compiled once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "schedule/feasibility.hpp"
#include "support_random_problem.hpp"
#include "support_video_sparse.hpp"

namespace tilewright::testing {

constexpr Architecture ampere{8, 0, 0}, hopper{9, 0, 'a'};

/// RandomProblem(seed, limits), or RandomBackward or RandomVideoSparseBackward with their limits.
template <class Limits> struct Form {
  std::uint64_t seed;
  Limits limits;
};
using AttentionForm = Form<RandomLimits>;
using VideoSparseForm = Form<VideoSparseLimits>;

/// pattern x type x head size x layout; seeds first, first + step, ...
inline std::vector<AttentionForm> every_form(RandomLimits limits, std::uint64_t first, std::uint64_t step) {
  std::vector<AttentionForm> forms;
  for (const PatternKind pattern : {PatternKind::dense, PatternKind::sliding_tile, PatternKind::block_list})
    for (const DataType dtype : {DataType::bf16, DataType::fp16})
      for (const std::int32_t head_dim : {64, 128})
        for (const Layout layout : {Layout::raster, Layout::tiled}) {
          limits.pattern = pattern;
          limits.dtype = dtype;
          limits.head_dim = head_dim;
          limits.layout = layout;
          forms.push_back({first + step * forms.size(), limits});
        }
  return forms;
}

inline std::vector<AttentionForm> forward_forms(const Architecture& architecture) {
  RandomLimits limits;
  limits.max_tokens = 500;
  limits.max_text = 128;
  limits.max_flops = 8e6;
  limits.any_strides = architecture.major < 9; // boxes cannot follow every stride
  return every_form(limits, 1, 0);
}

inline RandomLimits small_backward(const Architecture& architecture) {
  const bool boxes = architecture.major >= 9;
  RandomLimits limits;
  limits.max_tokens = boxes ? 600 : 400;
  limits.max_text = boxes ? 200 : 150;
  limits.max_flops = 1e7;
  limits.any_strides = !boxes;
  limits.query_scale_max = boxes ? 2 : 4;
  return limits;
}

/// Ampere's odd seeds are left for other problems of the same forms; those have a gradient of the log-sum-exp.
inline std::vector<AttentionForm> backward_forms(const Architecture& architecture) {
  return every_form(small_backward(architecture), 0, architecture.major < 9 ? 2 : 1);
}

inline VideoSparseLimits small_video_sparse_gradient() {
  VideoSparseLimits limits;
  limits.max_tiles = 12;
  limits.max_tokens = 900;
  limits.max_flops = 1.2e7;
  return limits;
}

/// type x head size x layout.
inline std::vector<VideoSparseForm> video_sparse_gradient_forms(const Architecture& architecture) {
  VideoSparseLimits limits = small_video_sparse_gradient();
  limits.max_flops = 4e6;
  std::vector<VideoSparseForm> forms;
  for (const Layout layout : {Layout::raster, Layout::tiled})
    for (const std::int32_t head_dim : {64, 128})
      for (const DataType dtype : {DataType::bf16, DataType::fp16}) {
        limits.layout = layout;
        limits.head_dim = head_dim;
        limits.dtype = dtype;
        forms.push_back({(architecture.major < 9 ? 0U : 100U) + forms.size(), limits});
      }
  return forms;
}

/// Schedules of the sm90 family, of every form.
inline std::vector<std::pair<Operator, Schedule>> hopper_schedules() {
  using enum Operator;
  const std::string three = "block_q=192,block_k=64,blocks_per_processor=1,consumers=3,consumer_registers=152,"
                            "producer_registers=56,";
  const std::string two = "block_q=128,blocks_per_processor=1,consumers=2,consumer_registers=232,"
                          "producer_registers=40,";
  const std::string merged = "block_q=64,block_k=64,cluster=1,blocks_per_processor=1,";
  const std::string backward = "cluster=1,overlap=0,softmax=online,";
  const std::pair<Operator, std::string> texts[] = {
      {attention_forward, three + "cluster=1,stages=2,overlap=0,softmax=fixed"},
      {attention_forward, three + "cluster=1,stages=4,overlap=1,softmax=lazy"},
      {attention_forward, three + "cluster=1,stages=3,overlap=1,softmax=online"},
      {attention_forward, three + "cluster=2,stages=2,overlap=1,softmax=fixed"},
      {attention_forward, three + "cluster=2,stages=5,overlap=0,softmax=lazy"},
      {attention_forward, two + "block_k=128,cluster=1,stages=2,overlap=1,softmax=fixed"},
      {attention_forward, two + "block_k=128,cluster=2,stages=2,overlap=1,softmax=online"},
      {attention_forward, two + "block_k=64,cluster=2,stages=3,overlap=0,softmax=fixed"},
      {attention_forward,
       merged + "consumers=3,consumer_registers=152,producer_registers=56,stages=4,overlap=0,softmax=fixed"},
      {attention_forward,
       merged + "consumers=3,consumer_registers=152,producer_registers=56,stages=3,overlap=1,softmax=fixed"},
      {attention_forward,
       merged + "consumers=2,consumer_registers=232,producer_registers=40,stages=3,overlap=1,softmax=lazy"},
      {attention_forward, "block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,consumer_registers=208,"
                          "producer_registers=40,cluster=1,overlap=1,softmax=fixed"},
      {attention_backward_key, backward + "block_q=64,block_k=128,stages=2,blocks_per_processor=1,consumers=2,"
                                          "consumer_registers=232,producer_registers=40"},
      {attention_backward_key, backward + "block_q=64,block_k=64,stages=1,blocks_per_processor=1,consumers=2,"
                                          "consumer_registers=224,producer_registers=56"},
      {attention_backward_key, backward + "block_q=64,block_k=64,stages=4,blocks_per_processor=1,consumers=2,"
                                          "consumer_registers=224,producer_registers=56"},
      {attention_backward_key, backward + "block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                                          "consumer_registers=224,producer_registers=32"},
      {attention_backward_query, backward + "block_q=64,block_k=64,stages=2,blocks_per_processor=2,consumers=1,"
                                            "consumer_registers=224,producer_registers=32"},
      {attention_backward_query, backward + "block_q=192,block_k=64,stages=3,blocks_per_processor=1,consumers=3,"
                                            "consumer_registers=160,producer_registers=32"},
      {attention_backward_query, backward + "block_q=64,block_k=64,stages=2,blocks_per_processor=1,consumers=3,"
                                            "consumer_registers=160,producer_registers=32"},
      {attention_backward_query, backward + "block_q=64,block_k=64,stages=3,blocks_per_processor=1,consumers=2,"
                                            "consumer_registers=232,producer_registers=40"}};
  std::vector<std::pair<Operator, Schedule>> schedules;
  for (const auto& [op, text] : texts)
    schedules.emplace_back(op, parse_schedule("family=sm90," + text));
  return schedules;
}

inline RandomLimits small_forward_hopper() {
  RandomLimits limits;
  limits.max_tokens = 800;
  limits.max_text = 256;
  limits.max_flops = 3e7;
  limits.any_strides = false;
  return limits;
}

/// The first problems that the schedule fits.
inline std::vector<AttentionForm> fitting_forms(Operator op, const Schedule& schedule, std::size_t count) {
  const RandomLimits limits = is_backward(op) ? small_backward(hopper) : small_forward_hopper();
  std::vector<AttentionForm> forms;
  for (std::uint64_t seed = 0; forms.size() < count && seed < 2000; ++seed) {
    Problem problem = RandomProblem(seed, limits).problem();
    problem.op = op;
    if (schedule::reasons_against(problem, schedule, hopper).empty())
      forms.push_back({seed, limits});
  }
  return forms;
}

} // namespace tilewright::testing
