// tilewright mask: who attends to whom, as a picture.
#include <memory>

#include <CLI/CLI.hpp>
#include <fmt/format.h>

#include "attention_input.hpp"
#include "commands.hpp"
#include "mask_picture.hpp"
#include "output_file.hpp"
#include "video_sparse_input.hpp"

namespace tilewright::tools {
namespace {

struct MaskOptions {
  std::string problem;
  std::filesystem::path output, input;
  PatternChoice pattern;
  std::int64_t batch = 0, head = 0;
  std::optional<std::int64_t> query;
  bool text = false;
};

Picture draw(const BlockMap& map, const MaskOptions& options) {
  return options.query ? draw_canvas(map, options.batch, options.head, *options.query)
                       : draw_matrix(map, options.batch, options.head);
}

PatternInput read_relation(const Problem& problem, const MaskOptions& options) {
  if (problem.pattern == PatternKind::dense)
    throw UsageError("the problem's pattern is dense", "patterns with tiles have a picture",
                     "none is needed: every query attends to every key");
  if (!options.input.empty())
    return read_attention_input(problem, read_safetensors(options.input), options.pattern).relation;
  return make_pattern(
      problem, options.pattern, options.head + 1, {}, [](const auto&, const auto&, std::int64_t) -> HostLists {
        throw UsageError("--topk is given without --input", "key tiles are chosen by their keys", "add --input FILE");
      });
}

void mask(const MaskOptions& options) {
  Problem problem = attention_option(options.problem);
  if (problem.op == Operator::video_sparse_attention)
    problem = fine_problem(problem); // with the same selection
  if (options.output.empty() && !options.text)
    throw UsageError("neither --output nor --text is given", "a PNG file, or text on the terminal",
                     "add -o mask.png or --text");
  if (!options.output.empty())
    check_output(options.output, "--output");
  const PatternInput relation = read_relation(problem, options);
  const BlockMap map(relation);
  const Picture picture = draw(map, options);
  if (!options.output.empty())
    write_png(options.output, picture, mask_style());
  if (options.text)
    fmt::print("{}", to_text(picture, mask_style()));
  fmt::print(stderr, "{} query tiles x {} key tiles, {:.1f} % kept\n", map.query_tiles(), map.key_tiles(),
             100 * map.kept_share());
}

} // namespace

void add_mask(CLI::App& application) {
  auto* const command = application.add_subcommand("mask", "A picture of who attends to whom");
  const auto options = std::make_shared<MaskOptions>();
  command->add_option("problem", options->problem, "The problem's line (sliding_tile or block_list)")->required();
  command->add_option("-o,--output", options->output, "PNG: a row a query tile, a column a key tile");
  command->add_flag("--text", options->text, "The same as text: # attends, . does not");
  command->add_option("--query", options->query,
                      "Instead of the matrix: the canvas, slice by slice in t, as this query tile (Q) sees it");
  command->add_option("--batch", options->batch)->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--head", options->head)->check(CLI::NonNegativeNumber)->capture_default_str();
  command->add_option("--input", options->input, ".safetensors with q, k and v: for --topk, and for the canvas");
  options->pattern.add_to(*command);
  command->callback([options] { mask(*options); });
}

} // namespace tilewright::tools
