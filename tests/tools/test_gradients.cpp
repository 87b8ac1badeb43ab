// Gradients from the command line: attend --backward, and bench --backward.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "command.hpp"
#include "reference/convert.hpp"
#include "tools/safetensors.hpp"

using namespace tilewright;
using namespace tilewright::tools;

namespace {

const std::vector<std::int64_t> video_shape{1, 4, 8, 8, 2, 64};
const std::string gated = "video_sparse_attention:head_dim=64";

/// q, k, v, gate and dout of a small video; without some of them.
void write_input(const CommandLine& command, const std::string& without = "") {
  Safetensors file;
  std::mt19937 random(5);
  for (const char* name : {"q", "k", "v", "gate", "dout"}) {
    HostTensor tensor = make_poisoned(ElementType::bf16, video_shape);
    for (std::uint16_t& bits : tensor.as<std::uint16_t>())
      bits = reference::encode(DataType::bf16, static_cast<double>(random() >> 16) / 32768 - 1);
    if (name != without)
      file.tensors.emplace(name, std::move(tensor));
  }
  write_safetensors(command.folder() / "in.safetensors", file);
}

std::string attend_backward(const std::string& problem, const std::string& rest) {
  return fmt::format("attend {} --input in.safetensors --output out.safetensors --backward {}", problem, rest);
}

std::vector<double> values_of(const Safetensors& file, const std::string& name) {
  const HostTensor& tensor = file.tensors.at(name);
  CHECK(tensor.shape == video_shape);
  std::vector<double> values;
  for (const std::uint16_t bits : tensor.as<std::uint16_t>())
    values.push_back(reference::decode(DataType::bf16, bits));
  return values;
}

double relative_l2(const std::vector<double>& actual, const std::vector<double>& expected) {
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < expected.size(); ++i) {
    error += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(error / norm);
}

} // namespace

TEST_CASE("attend --backward writes the gradients that the reference writes") {
  const CommandLine command;
  write_input(command);
  for (const auto& [text, options] : {std::pair(dense, ""), std::pair(gated, "--topk 2 ")}) {
    const std::string problem = text;
    CAPTURE(problem);
    std::vector<std::vector<double>> of_reference;
    const std::vector<std::string> names = problem == gated ? std::vector<std::string>{"dq", "dk", "dv", "dgate"}
                                                            : std::vector<std::string>{"dq", "dk", "dv"};
    for (const char* device : {"reference", "emulator"}) {
      const CommandResult result =
          command.run(attend_backward(problem, fmt::format("{}--device {} --check --json", options, device)));
      CAPTURE(result.error);
      REQUIRE(result.status == 0);
      CHECK(result.json().at("backward_milliseconds").get<double>() > 0);
      const Safetensors file = read_safetensors(command.folder() / "out.safetensors");
      CHECK(file.tensors.contains("out"));
      CHECK(file.tensors.contains("dgate") == (problem == gated));
      for (std::size_t i = 0; i < names.size(); ++i) {
        CHECK(result.json().at("gradient_relative_l2_errors").at(names[i]).get<double>() < 1e-2);
        const std::vector<double> values = values_of(file, names[i]);
        if (of_reference.size() < names.size())
          of_reference.push_back(values);
        else
          CHECK(relative_l2(values, of_reference[i]) < 1.5e-2); // both are rounded
      }
    }
  }
}

TEST_CASE("attend --backward wants dout in q's shape, and says so") {
  const CommandLine command;
  write_input(command, "dout");
  check_error(command.run(attend_backward(dense, "--device reference")), 2, "invalid_argument", "no tensor 'dout'");
  CHECK(!std::filesystem::exists(command.folder() / "out.safetensors"));
  Safetensors file = read_safetensors(command.folder() / "in.safetensors");
  file.tensors.emplace("dout", make_poisoned(ElementType::bf16, {1, 256, 2, 64}));
  write_safetensors(command.folder() / "in.safetensors", file);
  check_error(command.run(attend_backward(dense, "--device reference")), 1, "invalid_argument",
              "dout is BF16 [1, 256, 2, 64]");
}

TEST_CASE("bench --backward measures gradients on the emulator and the reference") {
  const CommandLine command;
  for (const char* device : {"reference", "emulator"}) {
    const CommandResult result = command.run(fmt::format(
        "bench {} --tokens 64 --heads 1 --device {} --rounds 1 --warm-up 0 --backward --json", dense, device));
    CAPTURE(result.error);
    REQUIRE(result.status == 0);
    CHECK(result.json().at("backward") == true);
    CHECK(result.json().at("milliseconds").get<double>() > 0);
  }
  const CommandResult result = command.run(fmt::format("bench {} --canvas 4x4x8 --heads 1 --topk 1 --device emulator "
                                                       "--rounds 1 --warm-up 0 --no-dense --backward --json",
                                                       gated));
  CAPTURE(result.error);
  REQUIRE(result.status == 0);
  for (const char* stage : {"whole", "forward", "gradient", "fine gradient", "pool and select", "fine, blended"})
    CHECK(result.json().at("stages").at(stage).at("milliseconds").get<double>() > 0);
}
