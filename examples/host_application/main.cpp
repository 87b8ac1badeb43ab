// A small host application: sliding tile attention over a video of random tokens, on a GPU if there is one (and this
// was built with the CUDA toolkit, for memory that a GPU reads), else in the emulator; checked against the float64
// reference.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <vector>

#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

#include "device_memory.hpp"

namespace {

constexpr std::int64_t heads = 2, head_dim = 64;
constexpr tilewright::Canvas canvas{8, 12, 12};
constexpr std::int64_t tokens = canvas.volume(), elements = tokens * heads * head_dim;

using Tensor = std::shared_ptr<std::uint16_t[]>; // the bits of bf16 numbers

/// bf16 is the upper half of a float.
std::uint16_t to_bf16(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<std::uint16_t>(bits >> 16);
}

float from_bf16(std::uint16_t half) {
  const std::uint32_t bits = std::uint32_t{half} << 16;
  float value = 0;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

Tensor random_tensor(unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Tensor tensor = allocate(elements);
  for (std::int64_t i = 0; i < elements; ++i)
    tensor[i] = to_bf16(normal(random));
  return tensor;
}

/// [batch, tokens, heads, head_dim], tokens in (t, h, w) order.
tilewright::TensorView view(const Tensor& tensor) {
  return tilewright::TensorView::contiguous(tensor.get(), tilewright::DataType::bf16, {1, tokens, heads, head_dim});
}

/// ||out - expected|| / ||expected||. The reference's order is [batch, heads, tokens, head_dim].
double relative_error(const Tensor& out, const std::vector<double>& expected) {
  double difference = 0, norm = 0;
  for (std::int64_t head = 0; head < heads; ++head)
    for (std::int64_t token = 0; token < tokens; ++token)
      for (std::int64_t element = 0; element < head_dim; ++element) {
        const double wanted = expected[static_cast<std::size_t>((head * tokens + token) * head_dim + element)];
        const double got = from_bf16(out[(token * heads + head) * head_dim + element]);
        difference += (got - wanted) * (got - wanted);
        norm += wanted * wanted;
      }
  return std::sqrt(difference / norm);
}

} // namespace

int main() {
  try {
    const Tensor q = random_tensor(1), k = random_tensor(2), v = random_tensor(3), out = allocate(elements);
    const tilewright::AttentionForward call{.q = view(q), .k = view(k), .v = view(v), .out = view(out)};
    const tilewright::SlidingTile pattern{.canvas = canvas, .tile = {4, 4, 4}, .windows = {{1, 3, 3}}};

    tilewright::Runtime runtime = make_runtime();
    runtime.attention_forward(call, pattern);
    wait_for_gpu();

    const double error = relative_error(out, tilewright::reference::attention_forward(call, pattern).out);
    constexpr double tolerance = 6e-3; // bf16: probabilities and outputs are rounded to 8 bits
    std::printf("%s\n%s, relative L2 error against float64: %.2e\n",
                to_string(tilewright::Runtime::problem_of(call, pattern)).c_str(),
                has_gpu() ? "on the GPU" : "in the emulator", error);
    return error <= tolerance ? 0 : 1;
  } catch (const tilewright::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
