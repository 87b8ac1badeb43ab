// Each primitive of templates/emulator that works without the copy engine, against its definition in the PTX ISA.
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <vector>

#include <doctest/doctest.h>

#include "emulator/tiny_kernel.hpp"
#include "reference/convert.hpp"

namespace tilewright::testing {
namespace {

constexpr int lanes = 32;

TEST_CASE("threads know who they are") {
  const Tiny kernel({"device/thread.cuh", "int* out;", R"(
    int* const mine = arguments.out + (block_index() * 64 + thread_index()) * 5;
    mine[0] = block_index(); mine[1] = grid_size(); mine[2] = thread_index(); mine[3] = warp_index(); mine[4] = lane_index();
  )",
                     64});
  std::vector<int> out(3 * 64 * 5, -1);
  struct {
    int* out;
  } arguments{out.data()};
  EmulatorOptions options = test_options();
  options.threads = 2;
  kernel.run(arguments, {3}, options);
  for (int block = 0; block < 3; ++block)
    for (int thread = 0; thread < 64; ++thread) {
      const int* const mine = out.data() + (block * 64 + thread) * 5;
      CHECK(std::array{mine[0], mine[1], mine[2], mine[3], mine[4]} ==
            std::array{block, 3, thread, thread / 32, thread % 32});
    }
}

TEST_CASE("lanes tell each other words") {
  const Tiny kernel({"device/warpgroup.cuh", "unsigned* out;", R"(
    const int lane = lane_index();
    unsigned* const mine = arguments.out + lane * 8;
    mine[0] = vote(lane % 3 == 0);
    mine[1] = static_cast<unsigned>(shuffle_xor(static_cast<float>(lane), 5));
    mine[2] = static_cast<unsigned>(broadcast(100 + lane, 7));
    mine[3] = uniform(1u << lane / 2);
    mine[4] = static_cast<unsigned>(minimum_of_lanes(3 - lane));
    mine[5] = elect_lane();
    mine[6] = elect_lane();
    mine[7] = static_cast<unsigned>(lowest_bit(0x50) * 16 + count_bits(0x71));
  )"});
  std::array<std::uint32_t, lanes * 8> out{};
  struct {
    std::uint32_t* out;
  } arguments{out.data()};
  std::array<bool, lanes> has_been_elected{};
  for (std::uint64_t seed = 0; seed < 64; ++seed) {
    EmulatorOptions options = test_options();
    options.seed = seed;
    kernel.run(arguments, {}, options);
    std::uint32_t multiples_of_3 = 0, elected = 0;
    for (int lane = 0; lane < lanes; lane += 3)
      multiples_of_3 |= 1U << lane;
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::uint32_t* const mine = out.data() + lane * 8;
      CHECK(mine[0] == multiples_of_3);
      CHECK(mine[1] == (lane ^ 5));
      CHECK(mine[2] == 107);
      CHECK(mine[3] == 0xffff);
      CHECK(static_cast<std::int32_t>(mine[4]) == 3 - 31);
      CHECK(mine[5] == mine[6]);
      elected += mine[5];
      has_been_elected[lane] = has_been_elected[lane] || mine[5] == 1;
      CHECK(mine[7] == 4 * 16 + 4);
    }
    CHECK(elected == 1);
  }
  CHECK(std::count(has_been_elected.begin(), has_been_elected.end(), true) > 8);
}

TEST_CASE("pack rounds to nearest even, as the reference's conversion does") {
  const Tiny kernel({"device/element.cuh", "const float* in; unsigned* bf16; unsigned* fp16; int count;", R"(
    for (int i = lane_index(); i < arguments.count; i += 32) {
      arguments.bf16[i] = pack<BFloat16>(arguments.in[i], -arguments.in[i]);
      arguments.fp16[i] = pack<Float16>(arguments.in[i], -arguments.in[i]);
    }
  )"});
  // Every bf16 and every fp16 value, the middle between it and the next, and what is just beside that.
  std::vector<float> in;
  const auto add_around = [&](float value, float next) {
    const auto middle = static_cast<float>((static_cast<double>(value) + static_cast<double>(next)) / 2);
    for (const float candidate : {value, std::nextafter(middle, value), middle, std::nextafter(middle, next)})
      if (!std::isnan(candidate))
        in.push_back(candidate);
  };
  for (std::uint32_t bits = 0; bits < 0x7f80; ++bits)
    add_around(std::bit_cast<float>(bits << 16), std::bit_cast<float>((bits + 1) << 16));
  for (std::uint16_t bits = 0; bits < 0x7c00; ++bits)
    add_around(static_cast<float>(reference::Float16::decode(bits)),
               static_cast<float>(reference::Float16::decode(static_cast<std::uint16_t>(bits + 1))));
  for (const float limit : {65504.f, 65519.99f, 65520.f, 1e30f, std::numeric_limits<float>::infinity()})
    in.push_back(limit);
  std::vector<std::uint32_t> bf16(in.size()), fp16(in.size());
  struct {
    const float* in;
    std::uint32_t *bf16, *fp16;
    int count;
  } arguments{in.data(), bf16.data(), fp16.data(), static_cast<int>(in.size())};
  kernel.run(arguments, {});
  const auto both = [](std::uint32_t low, std::uint32_t high) { return low | high << 16; };
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < in.size(); ++i) {
    const double value = static_cast<double>(in[i]);
    wrong += bf16[i] == both(reference::BFloat16::encode(value), reference::BFloat16::encode(-value)) ? 0 : 1;
    wrong += fp16[i] == both(reference::Float16::encode(value), reference::Float16::encode(-value)) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("NaN becomes the hardware's one NaN") {
  const Tiny kernel({"device/element.cuh", "float in; unsigned* out;", R"(
    arguments.out[0] = pack<BFloat16>(arguments.in, 1.f);
    arguments.out[1] = pack<Float16>(arguments.in, 1.f);
  )"});
  std::array<std::uint32_t, 2> out{};
  struct {
    float in;
    std::uint32_t* out;
  } arguments{std::bit_cast<float>(0xffc12345U), out.data()};
  kernel.run(arguments, {});
  CHECK(out[0] == 0x3f807fff);
  CHECK(out[1] == 0x3c007fff);
}

TEST_CASE("float32 arithmetic flushes subnormal numbers where the instruction does") {
  const Tiny kernel({"device/math.cuh", "float* out;", R"(
    float* const out = arguments.out;
    const float subnormal = 1e-40f, nan = negative_infinity() - negative_infinity();
    out[0] = exp2_approximate(-126.f);
    out[1] = exp2_approximate(-127.f);
    out[2] = exp2_approximate(negative_infinity());
    out[3] = exp2_approximate(0.5f);
    out[4] = log2_approximate(8.f);
    out[5] = log2_approximate(subnormal);
    out[6] = fused_multiply_add(1e-30f, 1e-30f, subnormal);
    out[7] = fused_multiply_add(1.f + 0x1p-23f, 1.f + 0x1p-23f, -1.f);
    out[8] = maximum(1.f, nan);
    out[9] = maximum(nan, 1.f);
    out[10] = maximum(-1.f, 2.f);
    out[11] = reciprocal(3.f);
  )"});
  std::array<float, 12> out{};
  struct {
    float* out;
  } arguments{out.data()};
  kernel.run(arguments, {});
  constexpr float infinity = std::numeric_limits<float>::infinity();
  const std::array expected{0x1p-126f, 0.f, 0.f, std::sqrt(2.f), 3.f, -infinity, 0.f, 0x1p-22f + 0x1p-46f,
                            1.f,       1.f, 2.f, 1.f / 3.f};
  for (std::size_t i = 0; i < out.size(); ++i) {
    CAPTURE(i);
    CHECK(out[i] == expected[i]);
  }
}

// Shared memory is filled with words that count up: word w of it is w. A row of a matrix is 4 words.
TEST_CASE("load_matrices hands out rows, load_matrices_transposed columns, store_matrices takes rows back") {
  const Tiny kernel({"device/copy.cuh device/matrix.cuh device/warpgroup_matrix.cuh", "unsigned* out;", R"(
    const int lane = lane_index();
    for (unsigned word = lane; word < 512; word += 32) {
      store_shared(shared_memory() + 4 * word, 2 * word | (2 * word + 1) << 16); // element e is e
    }
    synchronize_warp();
    const SharedAddress row = shared_memory() + (31 - lane) * 64; // rows stand apart, and backwards
    unsigned plain[4], transposed[4];
    load_matrices(plain, row);
    load_matrices_transposed(transposed, row);
    for (int matrix = 0; matrix < 4; ++matrix) {
      arguments.out[lane * 8 + matrix] = plain[matrix];
      arguments.out[lane * 8 + 4 + matrix] = transposed[matrix];
    }
    synchronize_warp();
    store_matrices(shared_memory() + lane * 16, plain[0], plain[1], plain[2], plain[3]);
    synchronize_warp();
    for (int word = 0; word < 4; ++word) {
      arguments.out[256 + lane * 4 + word] = load_shared_word(shared_memory() + lane * 16 + word * 4);
    }
  )"});
  std::array<std::uint32_t, 256 + 128> out{};
  struct {
    std::uint32_t* out;
  } arguments{out.data()};
  kernel.run(arguments, {1, 1, 2048});
  const auto element = [](std::uint32_t matrix, std::uint32_t row, std::uint32_t column) {
    return (31 - (matrix * 8 + row)) * 32 + column; // 64 bytes between rows
  };
  for (std::uint32_t lane = 0; lane < lanes; ++lane)
    for (std::uint32_t matrix = 0; matrix < 4; ++matrix) {
      const std::uint32_t group = lane / 4, pair = lane % 4 * 2;
      CHECK(out[lane * 8 + matrix] == (element(matrix, group, pair) | element(matrix, group, pair + 1) << 16));
      CHECK(out[lane * 8 + 4 + matrix] == (element(matrix, pair, group) | element(matrix, pair + 1, group) << 16));
      CHECK(out[256 + lane * 4 + matrix] ==
            (element(lane / 8, lane % 8, 2 * matrix) | element(lane / 8, lane % 8, 2 * matrix + 1) << 16));
    }
}

/// Small integers, exact in bf16, fp16 and in any sum of 16 products.
int small(std::uint32_t i, std::uint32_t j) { return static_cast<int>((i * 7 + j * 5 + i * j) % 17) - 8; }

TEST_CASE("multiply_add multiplies 16x16 by 16x8 in fragments") {
  for (const bool bf16 : {true, false}) {
    const Tiny kernel({"device/matrix.cuh", "const float* a; const float* b; float* d;",
                       std::string("using Element = ") + (bf16 ? "BFloat16" : "Float16") + R"(;
      const int group = lane_index() / 4, pair = lane_index() % 4 * 2;
      const auto a = [&](int row, int column) {
        return pack<Element>(arguments.a[row * 16 + column], arguments.a[row * 16 + column + 1]);
      };
      const auto b = [&](int row) { return pack<Element>(arguments.b[row * 8 + group], arguments.b[(row + 1) * 8 + group]); };
      const unsigned fragment[4] = {a(group, pair), a(group + 8, pair), a(group, pair + 8), a(group + 8, pair + 8)};
      float d[4] = {100.f, 100.f, 100.f, 100.f};
      multiply_add<Element>(d, fragment, b(pair), b(pair + 8));
      for (int i = 0; i < 4; ++i) {
        arguments.d[(group + i / 2 * 8) * 8 + pair + i % 2] = d[i];
      }
    )"});
    std::array<float, 256> a{};
    std::array<float, 128> b{}, d{};
    for (std::uint32_t i = 0; i < 16; ++i)
      for (std::uint32_t j = 0; j < 16; ++j) {
        a[i * 16 + j] = static_cast<float>(small(i, j));
        if (j < 8)
          b[i * 8 + j] = static_cast<float>(small(j, i + 3));
      }
    struct {
      const float *a, *b;
      float* d;
    } arguments{a.data(), b.data(), d.data()};
    kernel.run(arguments, {});
    for (std::uint32_t row = 0; row < 16; ++row)
      for (std::uint32_t column = 0; column < 8; ++column) {
        float expected = 100.f;
        for (std::uint32_t k = 0; k < 16; ++k)
          expected += a[row * 16 + k] * b[k * 8 + column];
        CHECK(d[row * 8 + column] == expected);
      }
  }
}

TEST_CASE("products take every fp16 value: subnormal ones, infinities, NaN") {
  const Tiny kernel({"device/matrix.cuh", "float* out;", R"(
    // a has the value to look at in its first column, b a 1 in its first row.
    const int group = lane_index() / 4;
    const bool first = lane_index() % 4 == 0;
    for (unsigned base = 0; base < 0x10000; base += 16) {
      const unsigned a[4] = {first ? base + group : 0, first ? base + group + 8 : 0, 0, 0};
      float d[4] = {0.f, 0.f, 0.f, 0.f};
      multiply_add<Float16>(d, a, lane_index() == 0 ? 0x3c00 : 0, 0);
      if (first) {
        arguments.out[base + group] = d[0];
        arguments.out[base + group + 8] = d[2];
      }
    }
  )"});
  std::vector<float> out(0x10000);
  struct {
    float* out;
  } arguments{out.data()};
  kernel.run(arguments, {});
  std::size_t wrong = 0;
  for (std::uint32_t bits = 0; bits < 0x10000; ++bits) {
    const auto expected = static_cast<float>(reference::Float16::decode(static_cast<std::uint16_t>(bits)));
    wrong += out[bits] == expected || (std::isnan(out[bits]) && std::isnan(expected)) ? 0 : 1;
  }
  CHECK(wrong == 0);
}

TEST_CASE("asynchronous copies bring 16 bytes or zeros, at the wait at the latest") {
  const Tiny kernel({"device/copy.cuh", "const unsigned* in; unsigned* out;", R"(
    const int lane = lane_index();
    const SharedAddress place = shared_memory() + lane * 32;
    copy_async(place, arguments.in + lane * 4, true);
    commit_copies();
    copy_async(place + 16, arguments.in + lane * 4, lane % 2 == 0);
    commit_copies();
    arguments.out[lane * 10] = load_shared_word(place);
    wait_for_copies<1>();
    arguments.out[lane * 10 + 1] = load_shared_word(place + 16);
    const Bytes16 first = load_shared(place);
    wait_for_copies<0>();
    const Bytes16 second = load_shared(place + 16);
    for (int word = 0; word < 4; ++word) {
      arguments.out[lane * 10 + 2 + word] = first.words[word];
      arguments.out[lane * 10 + 6 + word] = second.words[word];
    }
  )"});
  alignas(16) std::array<std::uint32_t, lanes * 4> in{};
  for (std::uint32_t i = 0; i < in.size(); ++i)
    in[i] = 1000 + i;
  std::array<std::uint32_t, lanes * 10> out{};
  struct {
    const std::uint32_t* in;
    std::uint32_t* out;
  } arguments{in.data(), out.data()};
  std::size_t early = 0;
  for (const Completion completion : {Completion::latest, Completion::earliest, Completion::seeded}) {
    EmulatorOptions options = test_options();
    options.completion = completion;
    kernel.run(arguments, {1, 1, 1024}, options);
    for (std::uint32_t lane = 0; lane < lanes; ++lane) {
      const std::uint32_t* const mine = out.data() + lane * 10;
      const std::uint32_t second = lane % 2 == 0 ? 1000 + lane * 4 : 0;
      const std::uint32_t poison = 0xffffffff;
      if (completion == Completion::latest)
        CHECK(std::array{mine[0], mine[1]} == std::array{poison, poison});
      else if (completion == Completion::earliest)
        CHECK(std::array{mine[0], mine[1]} == std::array{1000 + lane * 4, second});
      else
        early += mine[0] != poison ? 1 : 0;
      for (std::uint32_t word = 0; word < 4; ++word) {
        CHECK(mine[2 + word] == 1000 + lane * 4 + word);
        CHECK(mine[6 + word] == (lane % 2 == 0 ? 1000 + lane * 4 + word : 0));
      }
    }
  }
  CHECK(early > 4);
  CHECK(early < 28);
}

} // namespace
} // namespace tilewright::testing
