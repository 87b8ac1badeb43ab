#include "pattern_input.hpp"

#include <fmt/format.h>

namespace tilewright::tools {
namespace {

using problem::Tiling;

/// Empty where neither says it.
std::optional<Canvas> agree(const std::string& option, const std::string& text, std::optional<Canvas> of_tensors) {
  if (text.empty())
    return of_tensors;
  const Canvas given = extent_option(option, text);
  if (of_tensors && *of_tensors != given)
    throw UsageError(fmt::format("{} is {}", option, text),
                     fmt::format("the tensors' shape says {}", to_string(*of_tensors)), "leave the option out");
  return given;
}

void refuse_option(bool given, std::string_view option, const Problem& problem) {
  if (given)
    throw UsageError(fmt::format("{} is given for {}", option, to_string(problem)), "the pattern has no use for it",
                     "leave the option out, or change the problem's pattern");
}

void refuse_foreign_options(const PatternChoice& choice, const Problem& problem) {
  refuse_option(choice.sparsity.has_value(), "--sparsity", problem);
  if (problem.pattern != PatternKind::sliding_tile) {
    refuse_option(!choice.windows.empty(), "--windows", problem);
    refuse_option(choice.text_length.has_value(), "--text-length", problem);
  }
  if (problem.pattern != PatternKind::block_list) {
    refuse_option(!choice.lists.empty(), "--lists", problem);
    refuse_option(choice.topk.has_value(), "--topk", problem);
    refuse_option(!choice.key_canvas.empty(), "--key-canvas", problem);
  }
}

std::vector<Window> windows_of(const Problem& problem, const PatternChoice& choice, std::int64_t heads) {
  if (problem.window != Window{}) {
    if (!choice.windows.empty())
      throw UsageError("--windows is given although the problem names its window", "one of the two is allowed",
                       "leave the option out, or write window=per_head");
    return {problem.window};
  }
  if (choice.windows.empty())
    throw UsageError("the problem says window=per_head, and --windows is missing",
                     "one window for all heads, or one a head, is needed", "add --windows 3x3x3,...");
  std::vector<Window> windows = windows_option(choice.windows);
  if (windows.size() != 1 && windows.size() != static_cast<std::size_t>(heads))
    throw UsageError(fmt::format("--windows has {} windows", windows.size()),
                     fmt::format("one for all heads, or {}, one a head, are allowed", heads), "correct --windows");
  if (windows.size() == 1)
    windows.resize(static_cast<std::size_t>(heads), windows.front()); // a single one would be baked into the kernel
  return windows;
}

SlidingTile sliding_tile(const Problem& problem, const PatternChoice& choice, std::int64_t heads,
                         const Canvas& canvas) {
  if (problem.text == Text::present && !choice.text_length)
    throw UsageError("the problem has text, and --text-length is missing", "0 or more valid text tokens are allowed",
                     "add --text-length N");
  if (problem.text == Text::absent && choice.text_length)
    throw UsageError("--text-length is given for a problem with text=0", "text=1 takes text", "change the problem");
  return {.canvas = canvas,
          .tile = problem.tile,
          .windows = windows_of(problem, choice, heads),
          .text_length = choice.text_length};
}

std::optional<Safetensors> list_file(const PatternChoice& choice) {
  if (choice.lists.empty())
    return std::nullopt;
  return read_safetensors(choice.lists);
}

/// Sizes of each tile's valid rows, where the file of lists has them.
std::optional<TensorView> read_sizes(const Safetensors& file, const char* name, std::vector<std::int32_t>& sizes) {
  const auto found = file.tensors.find(name);
  if (found == file.tensors.end())
    return std::nullopt;
  sizes = to_int32(found->second, name);
  const auto& shape = found->second.shape;
  if (shape.size() == 1)
    return TensorView::contiguous(sizes.data(), DataType::int32, {shape[0]});
  if (shape.size() == 2)
    return TensorView::contiguous(sizes.data(), DataType::int32, {shape[0], shape[1]});
  throw Error(ErrorCode::invalid_argument, fmt::format("{} has the shape {}", name, shape_text(shape)),
              "[tiles] and [batch, tiles] are allowed", "correct the file of block lists");
}

std::int64_t require_topk(const PatternChoice& choice) {
  if (!choice.topk)
    throw UsageError("a block list is asked for, and neither --lists nor --topk is given",
                     "the lists come from a file or from a selection", "add --lists FILE or --topk K");
  return *choice.topk;
}

void set_block_list(PatternInput& input, const Problem& problem, const PatternChoice& choice, const Canvas& canvas,
                    const Canvas& key_canvas, const ListMaker& make_lists) {
  BlockList pattern{.canvas = canvas, .tile = problem.tile};
  pattern.neighbours_share = problem.sharing == Sharing::neighbours;
  pattern.key_canvas = key_canvas;
  pattern.key_tile = problem.key_tile;
  const Tiling queries(canvas, problem.tile), keys(key_canvas, problem.key_tile);
  if (const auto file = list_file(choice)) {
    input.lists = read_lists(*file, queries.tile_count(), keys.tile_count());
    pattern.query_sizes = read_sizes(*file, "query_sizes", input.query_sizes);
    pattern.key_sizes = read_sizes(*file, "key_sizes", input.key_sizes);
  } else {
    input.lists = make_lists(queries, keys, require_topk(choice));
  }
  input.lists.bind(pattern);
  input.pattern = pattern;
}

} // namespace

Canvas require_canvas(const std::string& option, const std::string& text, std::optional<Canvas> of_tensors) {
  const auto canvas = agree(option, text, of_tensors);
  if (!canvas)
    throw UsageError(fmt::format("{} is missing", option), "the pattern needs the video's extents in tokens, TxHxW",
                     fmt::format("add {} TxHxW", option));
  return *canvas;
}

PatternInput make_pattern(const Problem& problem, const PatternChoice& choice, std::int64_t heads,
                          const KnownCanvases& known, const ListMaker& make_lists) {
  refuse_foreign_options(choice, problem);
  PatternInput input;
  input.heads = heads;
  if (problem.pattern == PatternKind::dense)
    return input;
  const Canvas canvas = require_canvas("--canvas", choice.canvas, known.queries);
  if (problem.pattern == PatternKind::sliding_tile)
    input.pattern = sliding_tile(problem, choice, heads, canvas);
  else
    set_block_list(input, problem, choice, canvas,
                   agree("--key-canvas", choice.key_canvas, known.keys).value_or(canvas), make_lists);
  return input;
}

PatternInput keep_everything(const PatternInput& input) {
  PatternInput complete;
  complete.heads = input.heads;
  if (const auto* sliding = std::get_if<SlidingTile>(&input.pattern)) {
    SlidingTile wide = *sliding;
    const Extent3 tiles = Tiling(sliding->canvas, sliding->tile).tiles_per_axis();
    wide.windows = {{2 * tiles.t + 1, 2 * tiles.h + 1, 2 * tiles.w + 1}};
    complete.pattern = wide;
  } else if (const auto* blocks = std::get_if<BlockList>(&input.pattern)) {
    BlockList all = *blocks; // sizes stay the input's
    const Tiling keys(blocks->key_canvas.value_or(blocks->canvas), blocks->key_tile.value_or(blocks->tile));
    complete.lists = complete_lists(input.lists.query_tiles, keys.tile_count());
    complete.lists.bind(all);
    complete.pattern = all;
  }
  return complete;
}

} // namespace tilewright::tools
