#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <tilewright/error.hpp>
#include <tilewright/pattern.hpp>
#include <tilewright/problem.hpp>

using namespace tilewright;

namespace {

const char* const sliding = "attention_forward:pattern=sliding_tile,";

std::string message_of(const std::string& line, ErrorCode code) {
  try {
    parse_problem(line);
  } catch (const Error& error) {
    CHECK(error.code() == code);
    CHECK_FALSE(error.allowed().empty());
    CHECK_FALSE(error.remedy().empty());
    return error.problem();
  }
  return "no error";
}

} // namespace

TEST_CASE("a problem's line holds every decided field") {
  Problem problem;
  problem.pattern = PatternKind::sliding_tile;
  problem.tile = problem.key_tile = {6, 8, 8};
  problem.window = {3, 3, 3};
  problem.text = Text::present;
  problem.edges = Edges::full;
  CHECK(to_string(problem) == "attention_forward:pattern=sliding_tile,tile=6x8x8,window=3x3x3,text=1,edges=full,"
                              "dtype=bf16,head_dim=128,layout=raster");
  problem.window = {};
  problem.text = Text::open;
  problem.edges = Edges::open;
  problem.dtype = DataType::fp16;
  problem.head_dim = 64;
  problem.layout = Layout::tiled;
  CHECK(to_string(problem) == "attention_forward:pattern=sliding_tile,tile=6x8x8,window=per_head,dtype=fp16,"
                              "head_dim=64,layout=tiled");
  CHECK(to_string(Problem{}) == "attention_forward:pattern=dense,dtype=bf16,head_dim=128,layout=raster");
}

TEST_CASE("lines parse back to the same problem") {
  for (const std::string pattern :
       {"pattern=dense", "pattern=dense,edges=full", "pattern=dense,edges=clipped", "pattern=sliding_tile,window=3x4x5",
        "pattern=sliding_tile,tile=4x4x4,text=0", "pattern=sliding_tile,tile=1x16x16,window=1x1x1,text=1,edges=clipped",
        "pattern=block_list", "pattern=block_list,tile=1x1x128,key_tile=1x1x64,edges=full"})
    for (const std::string rest : {"", ",dtype=fp16", ",head_dim=64", ",layout=tiled", ",layout=raster"}) {
      const std::string line = "attention_forward:" + pattern + rest;
      CAPTURE(line);
      const Problem problem = parse_problem(line);
      CHECK(parse_problem(to_string(problem)) == problem);
      CHECK(to_string(parse_problem(to_string(problem))) == to_string(problem));
    }
  const Problem sized = parse_problem("attention_forward:layout=tiled,edges=sized,pattern=block_list");
  CHECK(sized.edges == Edges::sized);
  CHECK(parse_problem(to_string(sized)) == sized);
}

TEST_CASE("fields that are not given have their defaults") {
  Problem expected;
  CHECK(parse_problem("attention_forward:pattern=dense") == expected);
  expected.pattern = PatternKind::sliding_tile;
  expected.tile = expected.key_tile = {6, 8, 8};
  expected.text = Text::open;
  CHECK(parse_problem("attention_forward:pattern=sliding_tile") == expected);
  CHECK(parse_problem("attention_forward:pattern=sliding_tile,window=per_head") == expected);
  expected.pattern = PatternKind::block_list;
  expected.tile = expected.key_tile = {4, 4, 4};
  expected.text = Text::absent;
  CHECK(parse_problem("attention_forward:pattern=block_list") == expected);
}

TEST_CASE("a window keeps the extents it was given") {
  CHECK(parse_problem(std::string(sliding) + "window=2x3x4").window == Window{2, 3, 4});
}

TEST_CASE("errors name the field, its value and what is allowed") {
  const auto invalid = [](const std::string& line) { return message_of(line, ErrorCode::invalid_argument); };
  const auto unsupported = [](const std::string& line) { return message_of(line, ErrorCode::unsupported); };
  const std::string prefix = sliding;
  CHECK(invalid("").find("does not begin with an operator") != std::string::npos);
  CHECK(invalid("attention_forward") == "problem 'attention_forward' does not begin with an operator");
  CHECK(invalid("softmax:pattern=dense") == "problem 'softmax:pattern=dense' does not begin with an operator");
  CHECK(invalid("attention_forward:dtype=bf16") == "problem 'attention_forward:dtype=bf16' has no field pattern");
  CHECK(invalid("attention_forward:pattern=radial") == "problem field pattern is 'radial'");
  CHECK(invalid(prefix + "windows=3x3x3") == "problem field 'windows' is unknown (its value: '3x3x3')");
  CHECK(invalid(prefix + "tile") == "problem field 'tile' has no '='");
  CHECK(invalid(prefix) == "problem field '' has no '='");
  CHECK(invalid(prefix + "text=1,text=0") == "problem field text stands twice, as '1' and '0'");
  CHECK(invalid(prefix + "tile=6x8") == "problem field tile is '6x8'");
  CHECK(invalid(prefix + "tile=6x8x8x1") == "problem field tile is '6x8x8x1'");
  CHECK(invalid(prefix + "tile=6x8x-8") == "problem field tile is '6x8x-8'");
  CHECK(invalid(prefix + "tile=1x1x512") == "problem field tile is '1x1x512'");
  CHECK(invalid(prefix + "window=0x3x3") == "problem field window is '0x3x3'");
  CHECK(invalid(prefix + "window=0x0x0") == "problem field window is '0x0x0'");
  CHECK(invalid(prefix + "text=256") == "problem field text is '256'");
  CHECK(invalid(prefix + "edges=sized") == "problem field edges is 'sized'");
  CHECK(invalid(prefix + "key_tile=4x4x4") == "problem field key_tile is '4x4x4'");
  CHECK(invalid(prefix + "dtype=float32") == "problem field dtype is 'float32'");
  CHECK(invalid(prefix + "head_dim=128.0") == "problem field head_dim is '128.0'");
  CHECK(invalid(prefix + "layout=bhsd") == "problem field layout is 'bhsd'");
  CHECK(invalid("attention_forward:pattern=dense,window=1x1x1") == "problem field window is '1x1x1'");
  CHECK(invalid("attention_forward:pattern=dense,tile=4x4x4") == "problem field tile is '4x4x4'");
  CHECK(invalid("attention_forward:pattern=dense,text=1") == "problem field text is '1'");
  CHECK(invalid("attention_forward:pattern=block_list,window=per_head") == "problem field window is 'per_head'");
  CHECK(invalid("attention_forward:pattern=block_list,edges=sized") == "problem field edges is 'sized'");
  CHECK(unsupported(prefix + "head_dim=96") == "problem field head_dim is '96'");
  CHECK(unsupported(prefix + "tile=5x5x5") == "problem field tile is '5x5x5 (125 tokens)'");
  CHECK(unsupported(prefix + "tile=2x4x4") == "problem field tile is '2x4x4 (32 tokens)'");
  CHECK(unsupported(prefix + "tile=8x16x16") == "problem field tile is '8x16x16 (2048 tokens)'");
  CHECK(unsupported("attention_forward:pattern=block_list,key_tile=1x1x32") ==
        "problem field key_tile is '1x1x32 (32 tokens)'");
}

TEST_CASE("validate refuses values that no line can say") {
  Problem problem = parse_problem("attention_forward:pattern=sliding_tile,window=3x3x3");
  problem.window = {3, -1, 3};
  CHECK_THROWS_WITH_AS(validate(problem), doctest::Contains("window is '3x-1x3'"), Error);
  problem.window = {};
  problem.dtype = DataType::float32;
  CHECK_THROWS_WITH_AS(validate(problem), doctest::Contains("dtype is 'float32'"), Error);
  problem = parse_problem("attention_forward:pattern=dense");
  problem.text = Text::open;
  CHECK_THROWS_WITH_AS(validate(problem), doctest::Contains("text is 'open'"), Error);
}

TEST_CASE("closed variants decide every open property in all ways") {
  const auto lines = [](const char* line) {
    std::vector<std::string> result;
    for (const Problem& variant : closed_variants(parse_problem(line))) {
      CHECK_NOTHROW(validate(variant));
      CHECK(closed_variants(variant) == std::vector<Problem>{variant});
      const std::string text = to_string(variant);
      result.push_back(text.substr(text.find(':') + 1));
    }
    return result;
  };
  using Lines = std::vector<std::string>;
  const std::string tail = ",dtype=bf16,head_dim=128,layout=";
  CHECK(lines("attention_forward:pattern=dense") ==
        Lines{"pattern=dense,edges=full" + tail + "raster", "pattern=dense,edges=clipped" + tail + "raster"});
  const std::string tile = "pattern=sliding_tile,tile=6x8x8,window=3x3x3,";
  CHECK(lines("attention_forward:pattern=sliding_tile,window=3x3x3") ==
        Lines{tile + "text=0,edges=full" + tail + "raster", tile + "text=0,edges=clipped" + tail + "raster",
              tile + "text=1,edges=full" + tail + "raster", tile + "text=1,edges=clipped" + tail + "raster"});
  CHECK(lines("attention_forward:pattern=sliding_tile,window=3x3x3,text=1,layout=tiled") ==
        Lines{tile + "text=1,edges=full" + tail + "tiled", tile + "text=1,edges=clipped" + tail + "tiled"});
  const std::string list = "pattern=block_list,tile=4x4x4,";
  CHECK(lines("attention_forward:pattern=block_list,layout=tiled") == Lines{list + "edges=full" + tail + "tiled",
                                                                            list + "edges=clipped" + tail + "tiled",
                                                                            list + "edges=sized" + tail + "tiled"});
  CHECK(lines("attention_forward:pattern=block_list") ==
        Lines{list + "edges=full" + tail + "raster", list + "edges=clipped" + tail + "raster"});
}

TEST_CASE("linear block lists are one-dimensional canvases") {
  const BlockList list = BlockList::linear(1000, 2000, 64, 128, {}, {});
  CHECK(list.canvas == Canvas{1, 1, 1000});
  CHECK(list.tile == Tile{1, 1, 64});
  CHECK(list.key_canvas == Canvas{1, 1, 2000});
  CHECK(list.key_tile == Tile{1, 1, 128});
}

TEST_CASE("operators other than attention have the fields that they need, and no others") {
  for (const char* line :
       {"pool_tiles:tile=4x4x4,edges=full,dtype=bf16,head_dim=128,layout=raster",
        "pool_tiles:tile=2x8x8,edges=sized,dtype=fp16,head_dim=64,layout=tiled", "select_tiles:dtype=fp16,head_dim=64",
        "list_mask:", "transpose_lists:", "coarse_backward_query:dtype=bf16,head_dim=64",
        "coarse_backward_key:dtype=fp16,head_dim=128",
        "blend_backward:tile=4x4x4,edges=sized,blend=gated,dtype=fp16,head_dim=64,layout=tiled",
        "video_sparse_attention:tile=4x8x8,blend=coarse,dtype=bf16,head_dim=128,layout=tiled",
        "attention_forward:pattern=block_list,tile=4x4x4,edges=full,blend=gated,dtype=bf16,head_dim=128,layout=raster"})
    CHECK(to_string(parse_problem(line)) == line);
  CHECK(to_string(parse_problem("video_sparse_attention:head_dim=64")) ==
        "video_sparse_attention:tile=4x4x4,blend=gated,dtype=bf16,head_dim=64,layout=raster");
  for (const char* line :
       {"transpose_lists:dtype=bf16", "select_tiles:tile=4x4x4", "pool_tiles:pattern=dense",
        "video_sparse_attention:blend=none", "blend_backward:blend=none", "coarse_backward_key:layout=raster",
        "attention_forward:pattern=dense,blend=gated", "pool_tiles:edges=sized,layout=raster"})
    CHECK_THROWS_AS(parse_problem(line), Error);
}

TEST_CASE("an operator of several kernels is prepared as all of them") {
  const auto variants = closed_variants(parse_problem("video_sparse_attention:tile=4x4x4,edges=full"));
  REQUIRE(variants.size() == 3);
  CHECK(to_string(variants[0]) == "pool_tiles:tile=4x4x4,edges=full,dtype=bf16,head_dim=128,layout=raster");
  CHECK(to_string(variants[1]) == "select_tiles:dtype=bf16,head_dim=128");
  CHECK(to_string(variants[2]) == "attention_forward:pattern=block_list,tile=4x4x4,edges=full,blend=gated,dtype=bf16,"
                                  "head_dim=128,layout=raster");
  CHECK(closed_variants(parse_problem("video_sparse_attention:layout=tiled")).size() == 7);
  const auto steps = backward_steps(parse_problem("video_sparse_attention:tile=4x4x4,edges=full,blend=coarse"));
  REQUIRE(steps.size() == 6);
  CHECK(to_string(steps[0]) ==
        "blend_backward:tile=4x4x4,edges=full,blend=coarse,dtype=bf16,head_dim=128,layout=raster");
  CHECK(to_string(steps[1]) == "coarse_backward_query:dtype=bf16,head_dim=128");
  CHECK(to_string(steps[2]) == "coarse_backward_key:dtype=bf16,head_dim=128");
  CHECK(to_string(steps[3]) == "attention_backward_delta:pattern=block_list,tile=4x4x4,edges=full,dtype=bf16,"
                               "head_dim=128,layout=raster");
}
