// tilewright bench for video_sparse_attention: stage by stage, and beside dense attention.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

#include "bench_times.hpp"
#include "video_sparse_input.hpp"

namespace tilewright::tools {

struct BenchSettings {
  double warm_up_seconds = 0.3;
  int rounds = 3, dense_rounds = 3;
  bool warm_cache = false, dense = true;
  bool backward = false; // the gradient and its stages, too
};

/// Medians of the whole operator, of its stages on their own, and of dense attention over the same tensors.
struct VideoSparseTimes {
  Preparation preparation;
  std::size_t workspace_bytes = 0;
  double fine_flops = 0; // of random lists of the same length: with ragged canvases others count a little differently
  std::vector<std::pair<std::string, Times>> stages; // "whole" first: with settings.backward, forward and backward

  [[nodiscard]] double median(std::string_view stage) const; // milliseconds; 0 where it was not measured
  [[nodiscard]] std::string verdict() const;                 // whether dense would be faster; empty: not measured
  [[nodiscard]] nlohmann::json to_json() const;
};

VideoSparseTimes bench_video_sparse(Device& device, const VideoSparseInput& input, const BenchSettings& settings);

} // namespace tilewright::tools
