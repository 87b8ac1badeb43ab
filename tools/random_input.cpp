#include "attention_input.hpp"

#include <algorithm>
#include <cmath>
#include <future>
#include <limits>
#include <numbers>
#include <random>

#include "problem/relation.hpp"
#include "reference/convert.hpp"
#include "reference/parallel.hpp"

namespace tilewright::tools {
namespace {

using problem::Tiling;

HostTensor random_tensor(DataType type, std::vector<std::int64_t> shape, std::uint64_t seed) {
  HostTensor tensor = make_poisoned(element_type(type), std::move(shape));
  const std::span<std::uint16_t> values = tensor.as<std::uint16_t>();
  constexpr std::size_t piece = 1 << 20; // each has a seed of its own: the numbers do not depend on the threads
  const auto fill = [&](std::size_t number) {
    std::seed_seq seeds{seed, seed >> 32, static_cast<std::uint64_t>(number)};
    std::mt19937_64 random(seeds);
    std::uniform_real_distribution<float> uniform(std::numeric_limits<float>::min(), 1.0F);
    const std::size_t end = std::min(values.size(), (number + 1) * piece);
    for (std::size_t i = number * piece; i < end; i += 2) { // Box and Muller: two normal numbers from two uniform ones
      const float radius = std::sqrt(-2 * std::log(uniform(random)));
      const float angle = 2 * std::numbers::pi_v<float> * uniform(random);
      values[i] = reference::encode(type, radius * std::cos(angle));
      if (i + 1 < end)
        values[i + 1] = reference::encode(type, radius * std::sin(angle));
    }
  };
  constexpr int all_cores = 0;
  reference::parallel_for((values.size() + piece - 1) / piece, all_cores, fill);
  return tensor;
}

/// Rows of the tensors.
struct TokenCounts {
  std::int64_t queries, keys;
};

TokenCounts dense_tokens(const RandomShape& shape) {
  if (!shape.tokens)
    throw UsageError("--tokens is missing", "a dense problem needs the number of tokens", "add --tokens N");
  return {*shape.tokens, shape.key_tokens.value_or(*shape.tokens)};
}

TokenCounts canvas_tokens(const Problem& problem, const RandomShape& shape, const PatternChoice& choice) {
  if (shape.tokens || shape.key_tokens)
    throw UsageError("--tokens or --key-tokens is given for a pattern with a canvas", "the canvas says how many",
                     "use --canvas TxHxW");
  const Canvas canvas = require_canvas("--canvas", choice.canvas, std::nullopt);
  const Canvas key_canvas = choice.key_canvas.empty() ? canvas : extent_option("--key-canvas", choice.key_canvas);
  const auto rows = [&](const Canvas& extents, const Tile& tile) {
    return Tiling(extents, tile).token_count(problem.layout) + choice.text_length.value_or(0);
  };
  return {rows(canvas, problem.tile), rows(key_canvas, problem.key_tile)};
}

} // namespace

AttentionInput make_random_input(const Problem& problem, const RandomShape& shape, const PatternChoice& choice) {
  const TokenCounts tokens =
      problem.pattern == PatternKind::dense ? dense_tokens(shape) : canvas_tokens(problem, shape, choice);
  const std::int64_t kv_heads = shape.kv_heads.value_or(shape.heads);
  const std::uint64_t seed = shape.seed * 3; // three tensors
  const auto tensor = [&](std::int64_t rows, std::int64_t heads, std::uint64_t tensor_seed) {
    const bool raster = problem.layout == Layout::raster;
    return random_tensor(problem.dtype, {shape.batch, raster ? rows : heads, raster ? heads : rows, problem.head_dim},
                         tensor_seed);
  };
  // Side by side: a video's tensors are some hundred million numbers.
  std::future<HostTensor> query = std::async(std::launch::async, tensor, tokens.queries, shape.heads, seed),
                          key = std::async(std::launch::async, tensor, tokens.keys, kv_heads, seed + 1);
  HostTensor v = tensor(tokens.keys, kv_heads, seed + 2), q = query.get(), k = key.get();
  AttentionInput input(problem, std::move(q), std::move(k), std::move(v));
  input.set_pattern(problem, choice, [&](const Tiling& queries, const Tiling& keys, std::int64_t topk) {
    return random_lists(shape.batch, shape.heads, queries.tile_count(), keys.tile_count(), topk, shape.seed);
  });
  return input;
}

} // namespace tilewright::tools
