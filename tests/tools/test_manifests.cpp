// The manifests that ship: sound, and complete for whoever runs a model with jit=forbid.
#include <doctest/doctest.h>

#include <cstdlib>
#include <set>
#include <string>
#include <vector>

#include "command.hpp"
#include "tools/host_tensor.hpp"
#include "tools/manifest.hpp"
#include "tools/safetensors.hpp"

using namespace tilewright;

namespace {

const std::filesystem::path manifests = std::filesystem::path(TILEWRIGHT_PROJECT) / "cache/manifests";
const std::vector<std::string> every_manifest{"wan_2_1", "wan_2_2", "hunyuan_video", "step_video"};
const std::vector<std::string> every_architecture{"sm_80",  "sm_86",  "sm_87",  "sm_88",  "sm_89", "sm_90",
                                                  "sm_100", "sm_103", "sm_110", "sm_120", "sm_121"};

tools::Manifest manifest_of(const std::string& name) { return tools::read_manifest(manifests / (name + ".json")); }

/// Every variant's compile, each once.
std::set<std::string> kernels_of(const tools::Manifest& manifest) {
  std::set<std::string> kernels;
  for (const Problem& problem : manifest.problems)
    for (const Problem& variant : closed_variants(problem))
      kernels.insert(to_string(variant));
  return kernels;
}

/// One call of the problem, with tokens that fill the tiles, or leave the last ones ragged. Writes its input.
std::string call_of(const CommandLine& command, const Problem& problem, bool full) {
  constexpr std::int64_t text_tokens = 20;
  const bool video_sparse = problem.op == Operator::video_sparse_attention;
  const Extent3 canvas =
      video_sparse ? (full ? Extent3{8, 8, 8} : Extent3{9, 9, 9}) : (full ? Extent3{12, 16, 16} : Extent3{13, 17, 17});
  std::int64_t tokens = canvas.volume();
  std::string options;
  if (problem.pattern == PatternKind::dense && !video_sparse) {
    tokens = full ? 384 : 400; // for key blocks of 64 and 128
  } else {
    options = fmt::format(" --canvas {}", to_string(canvas));
    if (video_sparse)
      options += " --topk 2";
    else if (problem.window == Extent3{})
      options += " --windows 3x3x3,1x1x3";
    if (problem.text == Text::present) {
      options += fmt::format(" --text-length {}", text_tokens);
      tokens += text_tokens;
    }
  }
  tools::Safetensors input;
  for (const char* name : {"q", "k", "v", "gate"})
    if (name != std::string("gate") || video_sparse)
      input.tensors.emplace(name, tools::make_poisoned(tools::ElementType::bf16, {1, tokens, 2, problem.head_dim}));
  tools::write_safetensors(command.folder() / "in.safetensors", input);
  return fmt::format("attend {} --input in.safetensors --output out.safetensors --device cuda --json{}",
                     to_string(problem), options);
}

/// A machine with a GPU of this architecture (a driver that loads and launches, and computes nothing), without
/// libnvrtc, that may not compile.
std::string machine(const std::string& architecture) {
  return fmt::format("TILEWRIGHT_LIBCUDA='{}' FAKE_CUDA_CAPABILITY={} TILEWRIGHT_NVRTC=/nowhere TILEWRIGHT_JIT=forbid",
                     TILEWRIGHT_FAKE_LIBCUDA, architecture.substr(std::string("sm_").size()));
}

void check_calls(const CommandLine& command, const tools::Manifest& manifest, const std::string& architecture) {
  for (const Problem& problem : manifest.problems)
    for (const bool full : {true, false}) {
      const std::string call = call_of(command, problem, full);
      const CommandResult result = command.run(call, machine(architecture));
      CAPTURE(call);
      CAPTURE(result.error);
      REQUIRE(result.status == 0);
      CHECK(result.json().at("cache") == "hit");
      CHECK(result.json().at("arch").get<std::string>().starts_with(architecture));
    }
}

} // namespace

TEST_CASE("the manifests that ship are sound, name every architecture and say where they come from") {
  for (const std::string& name : every_manifest) {
    const tools::Manifest manifest = manifest_of(name);
    std::vector<std::string> architectures;
    for (const Architecture& architecture : manifest.architectures)
      architectures.push_back(to_string(architecture));
    CHECK(architectures == every_architecture);
    CHECK(manifest.problems.size() == 4);
    CHECK(kernels_of(manifest).size() == 11);
    const auto json = nlohmann::json::parse(CommandLine::read(manifests / (name + ".json")));
    for (const char* said : {"128", "STA: ", "VSA: "})
      CHECK(json.at("source").get<std::string>().find(said) != std::string::npos);
  }
}

// In CI one manifest for a Hopper GPU and another for one with the least shared memory; TILEWRIGHT_EVERY_MANIFEST=1:
// all of them for every architecture.
TEST_CASE("after a warmup with a manifest, jit=forbid runs every problem in it") {
  const CommandLine command;
  if (command.run("doctor --json").json().at("NVRTC").at("ok") != true) {
    MESSAGE("SKIP: no NVRTC here");
    return;
  }
  std::vector<std::pair<std::string, std::string>> cases{{"wan_2_1", "sm_90"}, {"hunyuan_video", "sm_120"}};
  if (std::getenv("TILEWRIGHT_EVERY_MANIFEST") != nullptr) {
    cases.clear();
    for (const std::string& name : every_manifest)
      for (const std::string& architecture : every_architecture)
        cases.emplace_back(name, architecture);
  }
  check_error(command.run(call_of(command, manifest_of("wan_2_1").problems.front(), true), machine("sm_90")), 1,
              "jit_forbidden", "tilewright compile");
  for (const auto& of_case : cases) {
    const std::string &name = of_case.first, &architecture = of_case.second;
    CAPTURE(name);
    CAPTURE(architecture);
    const tools::Manifest manifest = manifest_of(name);
    const std::string warmup =
        fmt::format("warmup '{}' --arch {}", (manifests / (name + ".json")).string(), architecture);
    const auto warmed = command.run(warmup + " --jobs 2");
    CAPTURE(warmed.error);
    REQUIRE(warmed.status == 0);
    check_calls(command, manifest, architecture);
    const auto again = command.run(warmup + " --jit forbid --json", "TILEWRIGHT_NVRTC=/nowhere");
    CHECK(again.status == 0);
    std::set<std::string> cached;
    for (std::size_t start = 0, end = 0; (end = again.out.find('\n', start)) != std::string::npos; start = end + 1) {
      const auto kernel = nlohmann::json::parse(again.out.substr(start, end - start));
      CHECK(kernel.at("cached") == true);
      CHECK(kernel.at("spill_bytes") == 0);
      cached.insert(kernel.at("problem"));
    }
    CHECK(cached == kernels_of(manifest));
  }
}
