#include <tilewright/problem.hpp>

#include <algorithm>
#include <iterator>
#include <limits>
#include <span>

#include <fmt/format.h>

#include "problem/fields.hpp"
#include <tilewright/error.hpp>
#include <tilewright/pattern.hpp>

namespace tilewright {
namespace {

using problem::name_of;
using problem::Named;

constexpr Named<Operator> operators[] = {{Operator::attention_forward, "attention_forward"},
                                         {Operator::attention_backward_delta, "attention_backward_delta"},
                                         {Operator::attention_backward_key, "attention_backward_key"},
                                         {Operator::attention_backward_query, "attention_backward_query"},
                                         {Operator::pool_tiles, "pool_tiles"},
                                         {Operator::select_tiles, "select_tiles"},
                                         {Operator::list_mask, "list_mask"},
                                         {Operator::transpose_lists, "transpose_lists"},
                                         {Operator::blend_backward, "blend_backward"},
                                         {Operator::coarse_backward_query, "coarse_backward_query"},
                                         {Operator::coarse_backward_key, "coarse_backward_key"},
                                         {Operator::video_sparse_attention, "video_sparse_attention"}};
constexpr Named<PatternKind> patterns[] = {{PatternKind::dense, "dense"},
                                           {PatternKind::sliding_tile, "sliding_tile"},
                                           {PatternKind::block_list, "block_list"}};
constexpr Named<DataType> dtypes[] = {{DataType::bf16, "bf16"}, {DataType::fp16, "fp16"}};
constexpr Named<Layout> layouts[] = {{Layout::raster, "raster"}, {Layout::tiled, "tiled"}};
constexpr Named<Text> texts[] = {{Text::absent, "0"}, {Text::present, "1"}};
constexpr Named<Edges> edges[] = {{Edges::full, "full"}, {Edges::clipped, "clipped"}, {Edges::sized, "sized"}};

constexpr Named<Blend> blends[] = {{Blend::none, "none"}, {Blend::coarse, "coarse"}, {Blend::gated, "gated"}};

constexpr Named<Sharing> sharings[] = {{Sharing::unknown, "unknown"}, {Sharing::neighbours, "neighbours"}};

constexpr std::string_view field_names[] = {"pattern", "tile",    "key_tile", "window",   "text",  "edges",
                                            "blend",   "sharing", "dtype",    "head_dim", "layout"};

/// The fields of an operator's line, in their order.
std::span<const std::string_view> fields_of(Operator op) {
  static constexpr std::string_view backward[] = {"pattern", "tile",  "key_tile", "window", "text",
                                                  "edges",   "dtype", "head_dim", "layout"};
  static constexpr std::string_view pool[] = {"tile", "edges", "dtype", "head_dim", "layout"};
  static constexpr std::string_view select[] = {"dtype", "head_dim"};
  static constexpr std::string_view whole[] = {"tile", "edges", "blend", "sharing", "dtype", "head_dim", "layout"};
  switch (op) {
  case Operator::attention_backward_delta:
  case Operator::attention_backward_key:
  case Operator::attention_backward_query:
    return backward;
  case Operator::pool_tiles:
    return pool;
  case Operator::select_tiles:
  case Operator::coarse_backward_query:
  case Operator::coarse_backward_key:
    return select;
  case Operator::list_mask:
  case Operator::transpose_lists:
    return {};
  case Operator::blend_backward:
  case Operator::video_sparse_attention:
    return whole;
  default:
    return field_names;
  }
}

bool has_field(Operator op, std::string_view field) {
  const auto fields = fields_of(op);
  return std::find(fields.begin(), fields.end(), field) != fields.end();
}

constexpr bool always_blends(Operator op) {
  return op == Operator::video_sparse_attention || op == Operator::blend_backward;
}

/// What an operator's problems have in the fields that its line does not show.
Problem blank_problem(Operator op) {
  Problem problem;
  problem.op = op;
  if (has_field(op, "tile") && !has_field(op, "pattern"))
    problem.pattern = PatternKind::block_list;
  if (!has_field(op, "edges"))
    problem.edges = Edges::full;
  return problem;
}
constexpr std::string_view per_head = "per_head";
constexpr Extent3 none{};

// A tile is a whole number of the key blocks that kernels step by, and its rows fit their tables.
constexpr std::int64_t tile_multiple = 64, tile_maximum = 1024;
// The copy engine's limit for one extent of a box (CUDA driver API, cuTensorMapEncodeTiled).
constexpr std::int32_t tile_extent_maximum = 256;

[[noreturn]] void refuse(ErrorCode code, std::string_view field, const std::string& value, std::string_view allowed,
                         std::string_view remedy) {
  throw Error(code, fmt::format("problem field {} is '{}'", field, value), fmt::format("allowed: {}", allowed),
              std::string(remedy));
}

void require_none(std::string_view field, const Extent3& value, PatternKind pattern) {
  if (value != none)
    refuse(ErrorCode::invalid_argument, field, to_string(value),
           fmt::format("0x0x0 for pattern={}, which has none", name_of(patterns, pattern)), "leave it out");
}

void validate_tile(std::string_view field, const Tile& tile) {
  for (const std::int32_t extent : {tile.t, tile.h, tile.w})
    if (extent < 1 || extent > tile_extent_maximum)
      refuse(ErrorCode::invalid_argument, field, to_string(tile),
             fmt::format("extents from 1 to {}", tile_extent_maximum), "choose a tile with extents in this range");
  if (tile.volume() % tile_multiple != 0 || tile.volume() > tile_maximum)
    refuse(ErrorCode::unsupported, field, fmt::format("{} ({} tokens)", to_string(tile), tile.volume()),
           fmt::format("a multiple of {} tokens, at most {}", tile_multiple, tile_maximum),
           "choose a tile of such a size, for example 4x4x4 or 6x8x8");
}

void validate_window(const Problem& problem) {
  const Window& window = problem.window;
  if (window != none && (window.t < 1 || window.h < 1 || window.w < 1))
    refuse(ErrorCode::invalid_argument, "window", to_string(window), "per_head, or extents of at least 1 tile",
           "give every axis at least one tile");
}

bool allows_edges(const Problem& problem, Edges candidate) {
  return candidate != Edges::sized || (problem.pattern == PatternKind::block_list && problem.layout == Layout::tiled);
}

/// What only some operators have.
void validate_operator(const Problem& problem) {
  if (problem.blend != Blend::none && (!has_field(problem.op, "blend") || problem.pattern != PatternKind::block_list))
    refuse(ErrorCode::invalid_argument, "blend", std::string(name_of(blends, problem.blend)),
           "none, unless the operator is attention_forward with pattern=block_list, video_sparse_attention or "
           "blend_backward",
           "leave it out");
  if (problem.blend == Blend::none && always_blends(problem.op))
    refuse(ErrorCode::invalid_argument, "blend", "none",
           fmt::format("coarse, gated for {}", name_of(operators, problem.op)),
           "select the tiles and call attention_forward with pattern=block_list to leave the coarse result out");
  if (problem.sharing != Sharing::unknown &&
      (!has_field(problem.op, "sharing") || problem.pattern != PatternKind::block_list))
    refuse(ErrorCode::invalid_argument, "sharing", std::string(name_of(sharings, problem.sharing)),
           "unknown, unless the operator is attention_forward with pattern=block_list, or video_sparse_attention",
           "leave it out");
  const Problem blank = blank_problem(problem.op);
  const bool wrong = (!has_field(problem.op, "pattern") && problem.pattern != blank.pattern) ||
                     (!has_field(problem.op, "edges") && problem.edges != blank.edges) ||
                     (!has_field(problem.op, "layout") && problem.layout != blank.layout) ||
                     (!has_field(problem.op, "dtype") && problem.dtype != blank.dtype) ||
                     (!has_field(problem.op, "head_dim") && problem.head_dim != blank.head_dim) ||
                     (!has_field(problem.op, "key_tile") && problem.key_tile != problem.tile);
  if (wrong)
    throw Error(ErrorCode::invalid_argument,
                fmt::format("a problem of {} has fields set that it does not have", name_of(operators, problem.op)),
                fmt::format("allowed: what parse_problem(\"{}:\") gives there", name_of(operators, problem.op)),
                "make the problem by parse_problem, or leave these fields as they are by default");
}

Problem with_operator(Problem problem, Operator op, Blend blend) {
  problem.op = op;
  problem.blend = blend;
  if (!has_field(op, "sharing"))
    problem.sharing = Sharing::unknown;
  return problem;
}

/// The problem of a kernel that works on means alone.
Problem problem_of_means(Operator op, const Problem& whole) {
  Problem problem = blank_problem(op);
  problem.dtype = whole.dtype;
  problem.head_dim = whole.head_dim;
  return problem;
}

/// The kernels' problems of an operator of several kernels.
std::vector<Problem> parts_of(const Problem& whole) {
  return {with_operator(whole, Operator::pool_tiles, Blend::none), problem_of_means(Operator::select_tiles, whole),
          with_operator(whole, Operator::attention_forward, whole.blend)};
}

} // namespace

std::string_view to_string(Operator op) noexcept { return name_of(operators, op); }

std::string to_string(const Problem& problem) {
  std::string line = fmt::format("{}:", name_of(operators, problem.op));
  const auto append = [&](std::string_view field, std::string_view value) {
    if (has_field(problem.op, field))
      line += fmt::format("{}{}={}", line.back() == ':' ? "" : ",", field, value);
  };
  append("pattern", name_of(patterns, problem.pattern));
  if (problem.tile != none)
    append("tile", to_string(problem.tile));
  if (problem.key_tile != problem.tile)
    append("key_tile", to_string(problem.key_tile));
  if (problem.window != none)
    append("window", to_string(problem.window));
  else if (problem.pattern == PatternKind::sliding_tile)
    append("window", per_head);
  if (problem.text != Text::open && problem.pattern == PatternKind::sliding_tile)
    append("text", name_of(texts, problem.text));
  if (problem.edges != Edges::open)
    append("edges", name_of(edges, problem.edges));
  if (problem.blend != Blend::none)
    append("blend", name_of(blends, problem.blend));
  if (problem.sharing != Sharing::unknown)
    append("sharing", name_of(sharings, problem.sharing));
  append("dtype", to_string(problem.dtype));
  append("head_dim", fmt::to_string(problem.head_dim));
  append("layout", name_of(layouts, problem.layout));
  return line;
}

Problem parse_problem(std::string_view line) {
  const auto colon = line.find(':');
  const auto name = line.substr(0, colon);
  const auto* const row = std::find_if(std::begin(operators), std::end(operators),
                                       [&](const Named<Operator>& candidate) { return candidate.name == name; });
  if (row == std::end(operators) || colon == std::string_view::npos) {
    std::string names;
    for (const auto& candidate : operators)
      names += fmt::format("{}{}", names.empty() ? "" : ", ", candidate.name);
    throw Error(ErrorCode::invalid_argument, fmt::format("problem '{}' does not begin with an operator", line),
                fmt::format("allowed: OPERATOR:FIELD=VALUE,... with {}", names),
                "write for example attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3");
  }
  const Operator op = row->value;
  const std::string_view text = line.substr(colon + 1);
  if (fields_of(op).empty() && text.empty())
    return blank_problem(op);
  const problem::Fields fields("problem", text, fields_of(op));
  if (has_field(op, "pattern") && !fields.find("pattern"))
    throw Error(ErrorCode::invalid_argument, fmt::format("problem '{}' has no field pattern", line),
                "allowed: pattern=dense, sliding_tile or block_list", "add the field pattern");

  Problem problem = blank_problem(op);
  problem.pattern = fields.choice("pattern", problem.pattern, patterns);
  const bool sliding_tile = problem.pattern == PatternKind::sliding_tile;
  const bool block_list = problem.pattern == PatternKind::block_list;
  problem.tile = fields.extent("tile", sliding_tile ? Tile{6, 8, 8} : block_list ? Tile{4, 4, 4} : none);
  problem.key_tile = fields.extent("key_tile", problem.tile);
  if (fields.find("window") != per_head)
    problem.window = fields.extent("window", none);
  if (!sliding_tile && fields.find("window"))
    fields.refuse("window", "none: only pattern=sliding_tile has windows");
  problem.text = fields.choice("text", sliding_tile ? Text::open : Text::absent, texts);
  problem.edges = fields.choice("edges", problem.edges, edges);
  problem.blend = fields.choice("blend", always_blends(op) ? Blend::gated : Blend::none, blends);
  problem.sharing = fields.choice("sharing", Sharing::unknown, sharings);
  problem.dtype = fields.choice("dtype", DataType::bf16, dtypes);
  problem.head_dim =
      static_cast<std::int32_t>(fields.integer("head_dim", 128, 1, std::numeric_limits<std::int32_t>::max()));
  problem.layout = fields.choice("layout", Layout::raster, layouts);
  validate(problem);
  return problem;
}

void validate(const Problem& problem) {
  if (problem.dtype != DataType::bf16 && problem.dtype != DataType::fp16)
    refuse(ErrorCode::unsupported, "dtype", std::string(to_string(problem.dtype)), "bf16, fp16", "convert the tensors");
  if (problem.head_dim != 64 && problem.head_dim != 128)
    refuse(ErrorCode::unsupported, "head_dim", fmt::to_string(problem.head_dim), "64, 128",
           "pad the heads with zeros to the next of these, and give the scale of the true size");

  if (problem.pattern == PatternKind::dense) {
    require_none("tile", problem.tile, problem.pattern);
    require_none("key_tile", problem.key_tile, problem.pattern);
  } else {
    validate_tile("tile", problem.tile);
    validate_tile("key_tile", problem.key_tile);
  }
  if (problem.pattern == PatternKind::sliding_tile) {
    validate_window(problem);
    if (problem.key_tile != problem.tile)
      refuse(ErrorCode::invalid_argument, "key_tile", to_string(problem.key_tile),
             fmt::format("{}, the same as tile, for pattern=sliding_tile", to_string(problem.tile)), "leave it out");
  } else {
    require_none("window", problem.window, problem.pattern);
    if (problem.text != Text::absent)
      refuse(ErrorCode::invalid_argument, "text", problem.text == Text::open ? "open" : "1",
             fmt::format("0 for pattern={}", name_of(patterns, problem.pattern)),
             "leave it out; append the text to the keys of a dense problem, or give it blocks of its own");
  }
  validate_operator(problem);
  if (!allows_edges(problem, problem.edges))
    refuse(ErrorCode::invalid_argument, "edges", "sized",
           fmt::format("full, clipped for pattern={},layout={}", name_of(patterns, problem.pattern),
                       name_of(layouts, problem.layout)),
           "use pattern=block_list with layout=tiled, or let the canvas give the sizes");
}

std::vector<Problem> backward_steps(const Problem& forward) {
  std::vector<Problem> steps;
  if (forward.op == Operator::video_sparse_attention) { // first: the others add what these make
    steps.push_back(with_operator(forward, Operator::blend_backward, forward.blend));
    steps.push_back(problem_of_means(Operator::coarse_backward_query, forward));
    steps.push_back(problem_of_means(Operator::coarse_backward_key, forward));
  }
  for (const auto& [op, name] : operators)
    if (is_backward(op))
      steps.push_back(with_operator(forward, op, Blend::none));
  return steps;
}

std::vector<Problem> closed_variants(const Problem& problem) {
  std::vector<Problem> variants;
  if (problem.op == Operator::video_sparse_attention) {
    for (const Problem& part : parts_of(problem))
      for (const Problem& variant : closed_variants(part))
        variants.push_back(variant);
    return variants;
  }
  for (const auto& [text, text_name] : texts) {
    if (problem.text != Text::open && problem.text != text)
      continue;
    for (const auto& [edge, edge_name] : edges) {
      if ((problem.edges != Edges::open && problem.edges != edge) || !allows_edges(problem, edge))
        continue;
      Problem variant = problem;
      variant.text = text;
      variant.edges = edge;
      variants.push_back(variant);
    }
  }
  return variants;
}

} // namespace tilewright
