#include "video_sparse_bench.hpp"

#include <algorithm>
#include <functional>

#include <fmt/format.h>

#include "bench_times.hpp"
#include "operators/video_sparse.hpp"
#include "progress.hpp"

namespace tilewright::tools {
namespace {

/// The stages, each measured on its own in turn with the others.
struct Stage {
  const char* name;
  std::function<void()> run;
  std::vector<double> times;
};

nlohmann::json times_of(const Times& times) {
  return {{"milliseconds", times.median}, {"milliseconds_quartiles", {times.lower_quartile, times.upper_quartile}}};
}

/// 4 * head_dim * valid query-key pairs of lists as long as the call's.
double fine_flops(const VideoSparseInput& input) {
  const HostLists& lists = input.base.relation.lists;
  const problem::Tiling queries(input.call.canvas, input.call.tile);
  const problem::Tiling keys(input.call.key_canvas.value_or(input.call.canvas), input.call.tile);
  double pairs = 0;
  for (std::int64_t batch = 0; batch < lists.batch; ++batch)
    for (std::int64_t head = 0; head < lists.heads; ++head)
      for (std::int64_t query = 0; query < lists.query_tiles; ++query) {
        std::int64_t valid_keys = 0;
        for (const std::int32_t key : lists.list(batch, head, query))
          valid_keys += keys.valid_tokens(key);
        pairs += static_cast<double>(queries.valid_tokens(query)) * static_cast<double>(valid_keys);
      }
  return 4 * static_cast<double>(input.call.q.extents[3]) * pairs;
}

/// The backward call of a placed call: dout holds the numbers of q.
VideoSparseAttentionBackward place_backward(Device& device, const VideoSparseInput& input,
                                            const VideoSparseAttention& placed) {
  const auto without_memory = [](TensorView view) {
    view.data = nullptr;
    return view;
  };
  VideoSparseAttentionBackward host;
  host.dout = input.call.q;
  host.dq = without_memory(input.call.q);
  host.dk = without_memory(input.call.k);
  host.dv = without_memory(input.call.v);
  if (placed.gate)
    host.dgate = without_memory(input.call.q);
  return device.place(host, placed);
}

/// The training step as a whole, its two halves, and the fine branch's gradient alone. call keeps its fine result.
void add_backward_stages(std::vector<Stage>& stages, Device& device, const VideoSparseInput& input,
                         const VideoSparseAttention& call, const BlockList& lists) {
  Runtime& runtime = *device.runtime();
  const VideoSparseAttentionBackward gradient = place_backward(device, input, call);
  AttentionBackward fine{.q = call.q,
                         .k = call.k,
                         .v = call.v,
                         .out = call.fine.value(),
                         .dout = gradient.dout,
                         .lse = call.lse.value(),
                         .dq = gradient.dq,
                         .dk = gradient.dk,
                         .dv = gradient.dv,
                         .layout = call.layout,
                         .scale = call.scale,
                         .workspace = gradient.workspace};
  fine.workspace_bytes = Runtime::workspace_bytes(fine, lists); // a part of the whole gradient's
  stages.push_back({"whole",
                    [&runtime, call, gradient] {
                      runtime.video_sparse_attention(call);
                      runtime.video_sparse_attention_backward(gradient);
                    },
                    {}});
  stages.push_back({"forward", [&runtime, call] { runtime.video_sparse_attention(call); }, {}});
  stages.push_back({"gradient", [&runtime, gradient] { runtime.video_sparse_attention_backward(gradient); }, {}});
  stages.push_back({"fine gradient", [&runtime, fine, lists] { runtime.attention_backward(fine, lists); }, {}});
}

} // namespace

VideoSparseTimes bench_video_sparse(Device& device, const VideoSparseInput& input, const BenchSettings& settings) {
  if (!device.runtime())
    throw UsageError("--device reference is given", "video_sparse_attention is measured on a GPU or in the emulator",
                     "use --device cuda or --device emulator");
  Runtime& runtime = *device.runtime();
  VideoSparseTimes result;
  VideoSparseAttention host = input.call;
  if (settings.backward) {
    host.fine = host.out;
    host.fine->data = nullptr;
  }
  const VideoSparseAttention call = device.place(host);
  result.preparation = device.prepare(call);
  const VideoSparseWorkspace workspace = runtime.workspace_of(call);
  result.workspace_bytes = workspace.bytes;

  const SelectTiles select = operators::select_call(call, workspace);
  const operators::FineCall blended = operators::fine_call(call, workspace);
  const BlockList& lists = blended.pattern;
  AttentionForward fine = blended.call;
  fine.coarse.reset();
  fine.gate.reset();
  fine.fine.reset();
  std::vector<Stage> stages;
  if (settings.backward)
    add_backward_stages(stages, device, input, call, lists);
  else
    stages.push_back({"whole", [&] { runtime.video_sparse_attention(call); }, {}});
  stages.push_back({"pool and select", [&] { runtime.video_sparse_selection(call); }, {}});
  stages.push_back({"select", [&] { runtime.select_tiles(select); }, {}});
  stages.push_back({"fine, blended", [&] { runtime.attention_forward(blended.call, lists); }, {}});
  stages.push_back({"fine alone", [&] { runtime.attention_forward(fine, lists); }, {}});
  if (settings.dense)
    stages.push_back({"dense", [&] { runtime.attention_forward(fine, Dense{}); }, {}});

  const Progress progress("measuring on " + device.name());
  for (Stage& stage : stages)
    stage.run(); // compiles; the first one fills the workspace for the others
  for (double spent = 0; spent < settings.warm_up_seconds * 1e3;)
    spent += std::max(device.measure(stages.front().run), 1e-3);
  L2Flush flush(device);
  for (int round = 0; round < settings.rounds; ++round)
    for (Stage& stage : stages) {
      if (stage.name == std::string_view("dense") && round >= settings.dense_rounds)
        continue;
      if (!settings.warm_cache)
        flush();
      stage.times.push_back(device.measure(stage.run));
    }
  for (Stage& stage : stages)
    result.stages.emplace_back(stage.name, quartiles(std::move(stage.times)));
  result.fine_flops = fine_flops(input);
  return result;
}

double VideoSparseTimes::median(std::string_view stage) const {
  const auto found =
      std::find_if(stages.begin(), stages.end(), [&](const auto& entry) { return entry.first == stage; });
  return found == stages.end() ? 0 : found->second.median;
}

std::string VideoSparseTimes::verdict() const {
  const double dense = median("dense"), whole = median("forward") > 0 ? median("forward") : median("whole");
  if (dense == 0)
    return {};
  return dense < whole
             ? fmt::format("dense attention would be faster here: {:.4g} ms instead of {:.4g} ms", dense, whole)
             : fmt::format("{:.2f} times as fast as dense attention", dense / whole);
}

nlohmann::json VideoSparseTimes::to_json() const {
  nlohmann::json json = times_of(stages.front().second);
  json["problem"] = preparation.problem;
  json["arch"] = preparation.architecture;
  json["cache"] = preparation.cached ? "hit" : "miss";
  json["workspace_bytes"] = workspace_bytes;
  json["fine_tflops"] = fine_flops / (median("fine, blended") * 1e9);
  for (const auto& [name, times] : stages)
    json["stages"][name] = times_of(times);
  if (median("dense") > 0)
    json["dense_is_faster"] = verdict().starts_with("dense");
  return json;
}

} // namespace tilewright::tools
