// The command from end to end: results, JSON fields, exit statuses, errors.
#include <doctest/doctest.h>

#include <cmath>

#include "command.hpp"
#include "reference/convert.hpp"
#include "tools/attention_input.hpp"
#include "tools/safetensors.hpp"

using namespace tilewright;
using namespace tilewright::tools;

namespace {

const std::string blocks = "attention_forward:pattern=block_list,tile=4x4x4,dtype=bf16,head_dim=64,layout=raster";

/// q, k and v of [batch, tokens, heads, head_dim], or with the canvas in the shape.
void write_input(const std::filesystem::path& path, const std::vector<std::int64_t>& shape,
                 ElementType type = ElementType::bf16) {
  Safetensors file;
  std::uint32_t state = 1;
  for (const char* name : {"q", "k", "v"}) {
    HostTensor tensor = make_poisoned(type, shape);
    for (std::uint16_t& bits : tensor.as<std::uint16_t>()) {
      state = state * 1664525 + 1013904223;
      bits = reference::encode(type == ElementType::f16 ? DataType::fp16 : DataType::bf16,
                               static_cast<double>(state >> 16) / 32768 - 1);
    }
    file.tensors.emplace(name, std::move(tensor));
  }
  write_safetensors(path, file);
}

void write_video(const CommandLine& command) { write_input(command.folder() / "in.safetensors", {1, 4, 8, 8, 2, 64}); }

std::string attend(const std::string& problem, const std::string& rest) {
  return fmt::format("attend {} --input in.safetensors --output out.safetensors {}", problem, rest);
}

bool has_output(const CommandLine& command) { return std::filesystem::exists(command.folder() / "out.safetensors"); }

} // namespace

TEST_CASE("attend computes on the reference, with all JSON fields") {
  const CommandLine command;
  write_video(command);
  const CommandResult result = command.run(attend(sliding, "--device reference --check --also-dense --json"));
  CAPTURE(result.error);
  REQUIRE(result.status == 0);
  const auto json = result.json();
  CHECK(json.at("problem") ==
        sliding.substr(0, sliding.find(",dtype")) + ",text=0,edges=full" + sliding.substr(sliding.find(",dtype")));
  CHECK(json.at("arch").is_null());
  CHECK(json.at("device") == "reference");
  CHECK(json.at("milliseconds").get<double>() > 0);
  CHECK(json.at("relative_l2_error").get<double>() > 0);
  CHECK(json.at("relative_l2_error").get<double>() < 6e-3);
  CHECK(json.at("max_abs_error").get<double>() > 0);
  CHECK(json.at("cache") == "miss");
  CHECK(json.at("kept_blocks") == 1.0); // 1 x 2 x 2 tiles: the window holds them all
  CHECK(json.at("dense_relative_l2_error") == json.at("relative_l2_error"));

  const Safetensors out = read_safetensors(command.folder() / "out.safetensors");
  CHECK(out.tensors.at("out").shape == std::vector<std::int64_t>{1, 4, 8, 8, 2, 64});
  CHECK(out.tensors.at("out").type == ElementType::bf16);
  CHECK(out.tensors.at("lse").shape == std::vector<std::int64_t>{1, 2, 256});
}

TEST_CASE("attend runs generated kernels in the emulator; a second run finds them compiled") {
  const CommandLine command;
  write_video(command);
  for (const auto& [text, options] : {std::pair(dense, ""), std::pair(sliding, ""), std::pair(blocks, "--topk 2")}) {
    const std::string problem = text;
    CAPTURE(problem);
    const std::string line = attend(problem, fmt::format("{} --check --json", options));
    const CommandResult first = command.run(line), second = command.run(line + " --seed 7");
    CAPTURE(first.error);
    REQUIRE(first.status == 0);
    REQUIRE(second.status == 0);
    CHECK(first.json().at("device") == "emulator (sm_80, seed 0)");
    CHECK(first.json().at("arch") == "sm_80");
    CHECK(first.json().at("cache") == "miss");
    CHECK(first.json().at("relative_l2_error").get<double>() < 6e-3);
    CHECK(second.json().at("cache") == "hit");
    CHECK(second.json().at("device") == "emulator (sm_80, seed 7)");
  }
}

TEST_CASE("attend and bench compute video sparse attention, mask draws its selection") {
  const CommandLine command;
  write_video(command);
  const std::string ungated = "video_sparse_attention:tile=4x4x4,blend=coarse,dtype=bf16,head_dim=64,layout=raster";
  for (const char* device : {"reference", "emulator"}) {
    const CommandResult result =
        command.run(attend(ungated, fmt::format("--device {} --sparsity 0.5 --check --also-dense --json", device)));
    CAPTURE(result.error);
    REQUIRE(result.status == 0);
    CHECK(result.json().at("kept_blocks") == 0.5);
    CHECK(result.json().at("relative_l2_error").get<double>() < 6e-3);
    CHECK(result.json().at("dense_relative_l2_error").get<double>() > 6e-3);
  }
  const CommandResult gated = command.run(attend("video_sparse_attention:head_dim=64", "--topk 1 --device reference"));
  CHECK(gated.status == 2);
  CHECK(gated.error.find("no tensor 'gate'") != std::string::npos);
  CHECK(command.run(attend(ungated, "--topk 5 --device reference")).status == 1); // 4 tiles
  CHECK(command.run(attend("pool_tiles:head_dim=64", "--device reference")).status == 2);

  const CommandResult bench = command.run("bench video_sparse_attention:head_dim=64 --canvas 4x8x8 --heads 1 --topk 2 "
                                          "--device emulator --rounds 1 --warm-up 0 --json");
  CAPTURE(bench.error);
  REQUIRE(bench.status == 0);
  for (const char* stage : {"whole", "pool and select", "select", "fine, blended", "fine alone", "dense"})
    CHECK(bench.json().at("stages").at(stage).at("milliseconds").get<double>() > 0);
  CHECK(bench.json().contains("dense_is_faster"));

  const CommandResult mask = command.run(fmt::format("mask {} --input in.safetensors --topk 1 --text", ungated));
  CAPTURE(mask.error);
  REQUIRE(mask.status == 0);
  CHECK(std::count(mask.out.begin(), mask.out.end(), '#') == 4); // a tile for each of the four
}

TEST_CASE("attend takes plain and tiled tensors, text, windows per head, and lists from files") {
  const CommandLine command;
  const auto succeeds = [&](const std::string& line) {
    const CommandResult result = command.run(line + " --device reference --check");
    CAPTURE(line);
    CAPTURE(result.error);
    CHECK(result.status == 0);
    CHECK(result.out.find("error") != std::string::npos);
  };
  write_input(command.folder() / "in.safetensors", {1, 256 + 16, 2, 64});
  succeeds(attend("attention_forward:pattern=sliding_tile,tile=4x4x4,head_dim=64,text=1",
                  "--canvas 4x8x8 --text-length 9 --windows 1x1x1,1x3x3"));
  write_input(command.folder() / "in.safetensors", {1, 2, 256, 64}, ElementType::f16);
  succeeds(attend("attention_forward:pattern=block_list,tile=4x4x4,head_dim=64,dtype=fp16,layout=tiled",
                  "--canvas 4x8x8 --topk 3"));

  Safetensors lists;
  HostTensor key_blocks = make_poisoned(ElementType::i16, {1, 1, 4, 1});
  std::fill(key_blocks.as<std::int16_t>().begin(), key_blocks.as<std::int16_t>().end(), std::int16_t{2});
  lists.tensors.emplace("key_blocks", std::move(key_blocks));
  write_safetensors(command.folder() / "lists.safetensors", lists);
  write_video(command);
  succeeds(attend(blocks, "--lists lists.safetensors"));
}

TEST_CASE("attend refuses wrong usage with status 2 and writes nothing") {
  const CommandLine command;
  write_video(command);
  const auto refuses = [&](const std::string& problem, const std::string& options, const std::string& fragment) {
    CAPTURE(options);
    check_error(command.run(attend(problem, options + " --device reference")), 2, "invalid_argument", fragment);
  };
  refuses("attention_forward:pattern=slidig", "", "slidig");
  refuses("attention_forward:pattern=sliding_tile,tile=4x4x4,window=0x3x3,head_dim=64", "", "window");
  refuses("attention_forward:pattern=sliding_tile,tile=4x4x4,window=3x-3x3,head_dim=64", "", "window");
  refuses(sliding, "--canvas 4x8", "--canvas");
  refuses(sliding, "--canvas 8x8x8", "--canvas is 8x8x8");
  refuses(sliding, "--windows 3x3x3", "--windows");
  refuses(sliding, "--topk 3", "--topk");
  refuses(dense, "--text-length 3", "--text-length");
  refuses(blocks, "", "neither --lists nor --topk");
  refuses("attention_forward:pattern=sliding_tile,tile=4x4x4,head_dim=64", "", "--windows is missing");
  refuses("attention_forward:pattern=sliding_tile,tile=4x4x4,head_dim=64", "--windows 1x1x1,1x1x1,1x1x1",
          "has 3 windows");
  check_error(command.run(attend(sliding, "--device gpu")), 2, "invalid_argument", "--device is 'gpu'");
  check_error(command.run(attend(sliding, "--device cuda:x")), 2, "invalid_argument", "cuda:N");
  CHECK(command.run("attend").status == 2);
  CHECK(command.run("").status == 2);
  CHECK(command.run("atend").status == 2);
  CHECK(command.run(attend(sliding, "--check=maybe")).status == 2);
  CHECK_FALSE(has_output(command));
}

TEST_CASE("attend refuses inputs that do not fit with status 1 and writes nothing") {
  const CommandLine command;
  const auto refuses = [&](const std::string& line, const std::string& code, const std::string& fragment) {
    CAPTURE(line);
    check_error(command.run(line), 1, code, fragment);
  };
  write_video(command);
  refuses(attend(sliding, "--device cuda"), "no_device", "/nowhere/libcuda.so.1");
  refuses(attend(sliding + ",text=1", "--text-length 5 --device reference"), "invalid_argument", "text");
  refuses(attend("attention_forward:pattern=dense,head_dim=128", ""), "invalid_argument", "head_dim 64");
  refuses(attend("attention_forward:pattern=dense,head_dim=64,dtype=fp16", ""), "invalid_argument", "BF16");
  refuses(attend("attention_forward:pattern=dense,head_dim=64,layout=tiled", ""), "invalid_argument", "[1, 4, 8, 8");
  refuses(attend("attention_forward:pattern=dense,head_dim=64,edges=clipped", ""), "invalid_argument", "edges=full");
  refuses(attend(blocks, "--topk 5 --device reference"), "invalid_argument", "topk is 5");
  refuses(fmt::format("attend {} --input missing --output out.safetensors", dense), "invalid_argument", "missing");
  refuses(fmt::format("attend {} --input in.safetensors --output no/folder/out", dense), "invalid_argument",
          "no/folder");

  const std::string whole = CommandLine::read(command.folder() / "in.safetensors");
  std::ofstream(command.folder() / "cut.safetensors", std::ios::binary) << whole.substr(0, whole.size() / 2);
  refuses(fmt::format("attend {} --input cut.safetensors --output out.safetensors", dense), "invalid_argument",
          "no valid .safetensors file");
  write_input(command.folder() / "in.safetensors", {1, 255, 2, 64});
  refuses(attend(sliding, "--canvas 4x8x8 --device reference"), "invalid_argument", "255");
  refuses(attend(blocks, "--canvas 4x8x8 --topk 2 --device reference"), "invalid_argument", "q has 255 tokens");
  write_input(command.folder() / "in.safetensors", {1, 0, 2, 64});
  refuses(attend(dense, "--device reference"), "invalid_argument", "[1, 0, 2, 64]");
  CHECK_FALSE(has_output(command));
}

TEST_CASE("source prints one self-contained file that names its spec") {
  const CommandLine command;
  const std::string closed = dense + ",edges=full";
  const CommandResult result = command.run("source " + closed + " --arch sm_80");
  CAPTURE(result.error);
  REQUIRE(result.status == 0);
  CHECK(result.error.empty());
  CHECK(result.out.find("// attention_forward:pattern=dense") == 0);
  CHECK(result.out.find("@sm_80/family=sm80") != std::string::npos);
  CHECK(result.out.find("__global__") != std::string::npos);
  CHECK(result.out.find("#include \"") == std::string::npos);
  CHECK(command.run("source " + dense).error.find("2 variants") != std::string::npos);
  check_error(command.run("source " + closed + " --arch sm_8x"), 2, "invalid_argument", "sm_8x");
  check_error(command.run("source " + closed + " --arch sm_80,sm_90a"), 2, "invalid_argument", "one architecture");
  check_error(command.run("source " + closed + " --schedule family=sm81"), 2, "invalid_argument", "sm81");
  check_error(command.run("source " + closed + " --arch sm_75"), 1, "unsupported", "sm_75");
}

TEST_CASE("compile without NVRTC is unsupported, with what was looked for") {
  const CommandLine command;
  check_error(command.run("compile " + dense + ",edges=full --arch sm_80", "TILEWRIGHT_NVRTC=/nowhere"), 1,
              "unsupported", "/nowhere");
  check_error(command.run("compile " + dense), 2, "invalid_argument", "--arch is not given");
}

TEST_CASE("compile puts kernels into the cache, with all JSON fields") {
  const CommandLine command;
  const std::string line = fmt::format("compile {},edges=full --arch sm_80 --json", dense);
  const CommandResult first = command.run(line);
  if (first.status == 1 && first.error.find("tilewright: unsupported") == 0) {
    MESSAGE("SKIP: no NVRTC here");
    return;
  }
  CAPTURE(first.error);
  REQUIRE(first.status == 0);
  const auto json = first.json(), again = command.run(line).json();
  CHECK(json.at("problem") ==
        dense.substr(0, dense.find(",dtype")) + ",edges=full" + dense.substr(dense.find(",dtype")));
  CHECK(json.at("arch") == "sm_80");
  CHECK(json.at("key").get<std::string>().size() == 32);
  CHECK(json.at("cached") == false);
  CHECK(json.at("compile_ms").get<double>() > 0);
  CHECK(json.at("registers").get<int>() > 0);
  CHECK(json.at("spill_bytes") == 0);
  CHECK(json.at("shared_memory_bytes").get<int>() > 0);
  CHECK(json.at("cubin_bytes").get<int>() > 1000);
  CHECK(again.at("cached") == true);
  CHECK(again.at("key") == json.at("key"));
  check_error(command.run("compile " + dense + ",edges=clipped --arch sm_80 --jit forbid"), 1, "jit_forbidden",
              "tilewright compile");
}

TEST_CASE("bench measures, with all JSON fields, and says that it was the emulator") {
  const CommandLine command;
  const CommandResult result =
      command.run("bench " + sliding + " --canvas 4x8x8 --heads 1 --rounds 1 --warm-up 0 --json");
  CAPTURE(result.error);
  REQUIRE(result.status == 0);
  const auto json = result.json();
  CHECK(json.at("problem").get<std::string>().find("edges=full") != std::string::npos);
  CHECK(json.at("device") == "emulator (sm_80, seed 0)");
  const double milliseconds = json.at("milliseconds").get<double>();
  REQUIRE(milliseconds > 0);
  const double flops = 4.0 * 64 * 256 * 256; // every tile sees every tile
  CHECK(json.at("tflops").get<double>() == doctest::Approx(flops / milliseconds / 1e9));
  check_error(command.run("bench " + sliding), 2, "invalid_argument", "--canvas is missing");
  check_error(command.run("bench " + dense), 2, "invalid_argument", "--tokens is missing");
  check_error(command.run("bench " + sliding + " --canvas 4x8x8 --tokens 5"), 2, "invalid_argument", "--tokens");
  CHECK(command.run("bench " + dense + " --tokens -5").status == 2);
}

TEST_CASE("mask draws the matrix and the canvas") {
  const CommandLine command;
  const std::string problem = "attention_forward:pattern=sliding_tile,tile=1x8x8,window=1x1x3";
  const CommandResult matrix = command.run("mask " + problem + " --canvas 1x8x32 --text -o mask.png");
  CAPTURE(matrix.error);
  REQUIRE(matrix.status == 0);
  CHECK(matrix.out == "###.\n###.\n.###\n.###\n");
  CHECK(matrix.error.find("4 query tiles x 4 key tiles, 75.0 % kept") != std::string::npos);
  CHECK(CommandLine::read(command.folder() / "mask.png").substr(1, 3) == "PNG");

  const CommandResult canvas = command.run("mask " + problem + " --canvas 1x8x32 --text --query 3");
  std::string picture;
  for (int line = 0; line < 8; ++line)
    picture += "........################QQQQQQQQ\n";
  CHECK(canvas.out == picture);
  check_error(command.run("mask " + problem + " --canvas 1x8x32"), 2, "invalid_argument", "--text");
  check_error(command.run("mask " + problem + " --text"), 2, "invalid_argument", "--canvas is missing");
  check_error(command.run("mask " + dense + " --text"), 2, "invalid_argument", "dense");
  check_error(command.run("mask " + problem + " --canvas 1x8x32 --text --query 4"), 1, "invalid_argument",
              "query is 4");
}

TEST_CASE("doctor says what is there and what is missing") {
  const CommandLine command;
  const CommandResult result = command.run("doctor --json", "TILEWRIGHT_NVRTC=/nowhere");
  CAPTURE(result.error);
  REQUIRE(result.status == 0);
  const auto json = result.json();
  CHECK(json.at("GPU").at("ok") == false);
  CHECK(json.at("GPU").at("lines").dump().find("/nowhere/libcuda.so.1") != std::string::npos);
  CHECK(json.at("NVRTC").at("ok") == false);
  CHECK(json.at("cache").at("ok") == true);
  CHECK(json.at("templates").at("ok") == true);
  CHECK(command.run("doctor").out.find("missing GPU") != std::string::npos);
  CHECK(command.run("--version").status == 0);
  CHECK(command.run("--help").out.find("doctor") != std::string::npos);
}

TEST_CASE("doctor and attend use the GPU that a driver offers") {
  const CommandLine command;
  const std::string fake = fmt::format("TILEWRIGHT_LIBCUDA='{}'", TILEWRIGHT_FAKE_LIBCUDA);
  const auto json = command.run("doctor --json", fake).json();
  CHECK(json.at("GPU").at("ok") == true);
  CHECK(json.at("GPU").at("lines").dump().find("Fake H100, sm_90") != std::string::npos);
}
