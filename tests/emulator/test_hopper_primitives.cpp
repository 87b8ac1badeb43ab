// The primitives of sm_90, against their definitions in the PTX ISA.
#include <algorithm>
#include <array>
#include <cstdint>
#include <numeric>
#include <vector>

#include <doctest/doctest.h>

#include "emulator/tiny_kernel.hpp"
#include "kernels/tensor_map.cuh"
#include "reference/convert.hpp"

namespace tilewright::testing {
namespace {

/// A tensor [t, h, w, columns] of 16-bit elements whose values are their own numbers, and a map of boxes of it.
struct NumberedTensor {
  static constexpr std::int64_t columns = 96, w = 5, h = 4, t = 3;
  std::vector<std::uint16_t> elements = std::vector<std::uint16_t>(columns * w * h * t);

  NumberedTensor() { std::iota(elements.begin(), elements.end(), std::uint16_t{1}); }

  [[nodiscard]] TensorMap map(std::array<std::uint32_t, 5> box) {
    emulator::EmulatorExecutor executor(test_options());
    TensorMapRequest request;
    request.data = elements.data();
    request.rank = 5;
    const std::array<std::uint64_t, 5> extents{columns, w, h, t, 1};
    std::uint64_t stride = 2;
    for (std::size_t i = 0; i < 5; ++i) {
      request.extents[i] = extents[i];
      request.strides_bytes[i] = stride;
      request.box[i] = box[i];
      stride *= extents[i];
    }
    return executor.encode(request);
  }

  [[nodiscard]] static bool inside(std::int64_t column, std::int64_t x, std::int64_t y, std::int64_t z) {
    return column >= 0 && column < columns && x >= 0 && x < w && y >= 0 && y < h && z >= 0 && z < t;
  }
  [[nodiscard]] std::uint16_t& at(std::int64_t column, std::int64_t x, std::int64_t y, std::int64_t z) {
    return elements[static_cast<std::size_t>(((z * h + y) * w + x) * columns + column)];
  }
};

/// Where chunk c of a box's row stands: the 128-byte swizzle of the header's comment.
std::size_t place_of(std::size_t row, std::size_t column) {
  return row * 64 + ((column / 8) ^ (row % 8)) * 8 + column % 8; // in elements
}

struct BoxArguments {
  tilewright::TensorMap map;
  int origin[5];
  std::uint16_t* out;
};
constexpr const char* box_arguments = "TensorMap map; BoxOrigin origin; unsigned short* out;";

TEST_CASE("a box arrives swizzled, with zeros for what is outside the tensor, whose bytes count too") {
  const Tiny kernel({"device/barrier.cuh device/copy.cuh device/tensor_copy.cuh", box_arguments, R"(
    const SharedAddress box = shared_memory(), barrier = shared_memory() + 4096;
    if (thread_index() == 0) {
      initialize_barrier(barrier, 1);
      publish_barriers();
      prefetch(arguments.map);
      arrive_expecting(barrier, 16 * 128);
      copy_box_to_shared(box, arguments.map, arguments.origin, barrier);
    }
    synchronize_warp();
    wait(barrier, 0);
    for (int word = thread_index(); word < 512; word += 32) {
      const unsigned pair = load_shared_word(box + 4 * word);
      arguments.out[2 * word] = static_cast<unsigned short>(pair);
      arguments.out[2 * word + 1] = static_cast<unsigned short>(pair >> 16);
    }
  )"});
  NumberedTensor tensor;
  const std::array<std::uint32_t, 5> box{64, 4, 2, 2, 1};
  for (const auto& origin : {std::array{0, 0, 0, 0, 0}, std::array{64, 3, 3, 2, 0}, std::array{-5, -1, -1, -1, 0},
                             std::array{90, 1, 2, 1, 0}, std::array{0, 0, 0, 0, 1}, std::array{1000, 0, 0, 0, 0}})
    for (const Completion completion : {Completion::latest, Completion::earliest}) {
      std::vector<std::uint16_t> out(16 * 64);
      BoxArguments arguments{tensor.map(box), {}, out.data()};
      std::copy(origin.begin(), origin.end(), arguments.origin);
      EmulatorOptions options = test_options();
      options.completion = completion;
      kernel.run(arguments, {1, 1, 4096 + 64}, options);
      std::size_t wrong = 0;
      for (std::size_t row = 0; row < 16; ++row)
        for (std::size_t column = 0; column < 64; ++column) {
          const std::int64_t x = origin[1] + static_cast<std::int64_t>(row % 4),
                             y = origin[2] + static_cast<std::int64_t>(row / 4 % 2),
                             z = origin[3] + static_cast<std::int64_t>(row / 8),
                             c = origin[0] + static_cast<std::int64_t>(column);
          const bool inside = NumberedTensor::inside(c, x, y, z) && origin[4] == 0;
          wrong += out[place_of(row, column)] == (inside ? tensor.at(c, x, y, z) : 0) ? 0 : 1;
        }
      CHECK(wrong == 0);
    }
}

TEST_CASE("a box's store leaves out what is outside the tensor") {
  const Tiny kernel({"device/copy.cuh device/tensor_copy.cuh", box_arguments, R"(
    const SharedAddress box = shared_memory();
    for (int word = thread_index(); word < 512; word += 32) {
      store_shared(box + 4 * word, (60000u + 2 * word) | (60001u + 2 * word) << 16);
    }
    fence_shared_for_copies();
    synchronize_warp();
    if (thread_index() == 0) {
      copy_box_to_global(arguments.map, arguments.origin, box);
      commit_box_copies();
      wait_for_box_sources();
      wait_for_box_copies();
    }
  )"});
  const std::array<std::uint32_t, 5> box{64, 4, 2, 2, 1};
  for (const auto& origin : {std::array{16, 1, 1, 1, 0}, std::array{64, 3, 3, 2, 0}, std::array{-5, -1, -1, -1, 0}})
    for (const Completion completion : {Completion::latest, Completion::earliest}) {
      NumberedTensor tensor, expected;
      BoxArguments arguments{tensor.map(box), {}, nullptr};
      std::copy(origin.begin(), origin.end(), arguments.origin);
      EmulatorOptions options = test_options();
      options.completion = completion;
      kernel.run(arguments, {1, 1, 4096}, options);
      for (std::size_t row = 0; row < 16; ++row)
        for (std::size_t column = 0; column < 64; ++column) {
          const std::int64_t x = origin[1] + static_cast<std::int64_t>(row % 4),
                             y = origin[2] + static_cast<std::int64_t>(row / 4 % 2),
                             z = origin[3] + static_cast<std::int64_t>(row / 8),
                             c = origin[0] + static_cast<std::int64_t>(column);
          if (NumberedTensor::inside(c, x, y, z))
            expected.at(c, x, y, z) = static_cast<std::uint16_t>(60000 + place_of(row, column));
        }
      CHECK(tensor.elements == expected.elements);
    }
}

// Values that are exact in both types, as are the sums of 16 products.
int small(std::int64_t i, std::int64_t j) { return static_cast<int>((i * 7 + j * 5 + i * j) % 17) - 8; }

struct ProductArguments {
  float* out; // 64 x columns, before and after
};

/// Fills a tile in shared memory with small(row, column) and computes d = d + tile_a * tile_b twice.
std::string product_body(bool bf16, int columns, bool registers) {
  const std::string n = std::to_string(columns);
  return std::string("using Element = ") + (bf16 ? "BFloat16" : "Float16") + ";constexpr int columns = " + n + R"(;
    // a: 64 x 64 with k in its columns. b: columns x 64 with k in its columns, or 64 x columns with k in its rows.
    using A = SharedTile<64, 64>;
    )" + (registers ? "using B = SharedTile<64, columns>;" : "using B = SharedTile<columns, 64>;") +
         R"(
    const A a{shared_memory()};
    const B b{shared_memory() + A::bytes};
    const auto small = [](int i, int j) { return static_cast<float>((i * 7 + j * 5 + i * j) % 17 - 8); };
    const auto fill = [&](auto tile, int offset) {
      for (int i = thread_index(); i < tile.rows * tile.chunks_per_row; i += 128) {
        const int row = i / tile.chunks_per_row, chunk = i % tile.chunks_per_row;
        Bytes16 bytes;
        for (int word = 0; word < 4; ++word) {
          bytes.words[word] = pack<Element>(small(row + offset, 8 * chunk + 2 * word), small(row + offset, 8 * chunk + 2 * word + 1));
        }
        store_shared(tile.chunk(row, chunk), bytes);
      }
    };
    fill(a, 0);
    fill(b, 3);
    fence_shared_for_copies();
    synchronize_block();
    const int lane = lane_index(), row = warp_index() * 16 + lane / 4, pair = lane % 4 * 2;
    float d[columns / 2];
    for (int i = 0; i < columns / 2; ++i) {
      d[i] = 100.f;
    }
    fence_products();
    for (int k = 0; k < 64; k += 16) {
)" +
         (registers ? R"(
      const unsigned fragment[4] = {
          pack<Element>(small(row, k + pair), small(row, k + pair + 1)),
          pack<Element>(small(row + 8, k + pair), small(row + 8, k + pair + 1)),
          pack<Element>(small(row, k + pair + 8), small(row, k + pair + 9)),
          pack<Element>(small(row + 8, k + pair + 8), small(row + 8, k + pair + 9))};
      const SharedMatrix operand = SharedMatrix::k_in_rows(b.base, B::panel_bytes) + static_cast<unsigned>(k) * 128;
      if (k == 0) {
        multiply_registers<Element, false>(d, fragment, operand);
      } else {
        multiply_registers<Element, true>(d, fragment, operand);
      }
)"
                    : R"(
      if (k == 0) {
        multiply_shared<Element, false>(d, SharedMatrix::k_in_columns(a.base), SharedMatrix::k_in_columns(b.base));
      } else {
        multiply_shared<Element, true>(d, SharedMatrix::k_in_columns(a.base) + 2u * k,
                                       SharedMatrix::k_in_columns(b.base) + 2u * k);
      }
)") + R"(
      if (k == 16) {
        commit_products();
      }
    }
    commit_products();
    wait_for_products<1>();
    const bool in_flight = d[0] != d[0];
    wait_for_products<0>();
    for (int i = 0; i < columns / 2; ++i) {
      arguments.out[(row + i / 2 % 2 * 8) * columns + i / 4 * 8 + pair + i % 2] = in_flight ? d[i] : -1e9f;
    }
  )";
}

TEST_CASE("warpgroup products read swizzled tiles and registers, and leave NaN in accumulators in flight") {
  for (const bool bf16 : {true, false})
    for (const int columns : {64, 128})
      for (const bool registers : {true, false}) {
        CAPTURE(bf16);
        CAPTURE(columns);
        CAPTURE(registers);
        const Tiny kernel({"device/barrier.cuh device/copy.cuh device/shared_tile.cuh device/tensor_copy.cuh "
                           "device/warpgroup.cuh device/warpgroup_matrix.cuh",
                           "float* out;", product_body(bf16, columns, registers), 128});
        for (const Completion completion : {Completion::latest, Completion::earliest, Completion::seeded}) {
          std::vector<float> out(static_cast<std::size_t>(64 * columns));
          ProductArguments arguments{out.data()};
          EmulatorOptions options = test_options();
          options.completion = completion;
          kernel.run(arguments, {1, 1, static_cast<std::uint32_t>(8192 + columns * 128)}, options);
          std::size_t wrong = 0;
          for (int row = 0; row < 64; ++row)
            for (int column = 0; column < columns; ++column) {
              int expected = 0;
              for (int k = 0; k < 64; ++k)
                expected += small(row, k) * (registers ? small(k + 3, column) : small(column + 3, k));
              wrong += out[static_cast<std::size_t>(row * columns + column)] == static_cast<float>(expected) ? 0 : 1;
            }
          CHECK(wrong == 0);
        }
      }
}

TEST_CASE("a barrier's phases count arrivals and bytes; waiters name a phase by its parity") {
  const Tiny kernel({"device/barrier.cuh device/copy.cuh device/warpgroup.cuh", "int* out;", R"(
    // Warp 0 fills a stage of one word, warps 1 and 2 read it: a ring of one.
    const SharedAddress word = shared_memory(), full = shared_memory() + 8, empty = shared_memory() + 16;
    if (thread_index() == 0) {
      initialize_barrier(full, 1);
      initialize_barrier(empty, 64);
    }
    synchronize_block();
    unsigned parity = 0;
    for (int round = 0; round < 5; ++round) {
      if (warp_index() == 0) {
        wait(empty, parity ^ 1);
        if (elect_lane()) {
          store_shared(word, static_cast<unsigned>(round * round));
          arrive(full);
        }
      } else {
        wait(full, parity);
        arguments.out[round * 64 + thread_index() - 32] = static_cast<int>(load_shared_word(word));
        arrive(empty);
      }
      parity ^= 1;
    }
  )",
                     96});
  std::array<int, 5 * 64> out{};
  struct {
    int* out;
  } arguments{out.data()};
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    EmulatorOptions options = test_options();
    options.seed = seed;
    out.fill(-1);
    kernel.run(arguments, {1, 1, 64}, options);
    for (int i = 0; i < 5 * 64; ++i)
      CHECK(out[static_cast<std::size_t>(i)] == i / 64 * (i / 64));
  }
}

TEST_CASE("numbered barriers meet some of the warps and find whether a condition holds for any") {
  const Tiny kernel({"device/barrier.cuh device/copy.cuh", "int* out;", R"(
    const int half = thread_index() / 64, thread = thread_index();
    store_shared(shared_memory() + thread * 4, static_cast<unsigned>(thread));
    synchronize_threads(1 + half, 64);
    const int neighbour = half * 64 + (thread + 33) % 64;
    const bool right = load_shared_word(shared_memory() + neighbour * 4) == static_cast<unsigned>(neighbour);
    const bool any = any_of_threads(3 + half, 64, thread == 70);
    const bool none = any_of_threads(3 + half, 64, false);
    arguments.out[thread] = right + 2 * any + 4 * none;
  )",
                     128});
  std::array<int, 128> out{};
  struct {
    int* out;
  } arguments{out.data()};
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    EmulatorOptions options = test_options();
    options.seed = seed;
    kernel.run(arguments, {1, 1, 512}, options);
    for (std::size_t thread = 0; thread < 128; ++thread)
      CHECK(out[thread] == (thread < 64 ? 1 : 3));
  }
}

TEST_CASE("thread blocks of a cluster copy into each other's shared memory and arrive on each other's barriers") {
  const Tiny kernel({"device/barrier.cuh device/cluster.cuh device/copy.cuh device/tensor_copy.cuh", box_arguments, R"(
    const SharedAddress full = shared_memory() + 4096, empty = full + 8;
    const int rank = cluster_rank();
    if (thread_index() == 0) {
      initialize_barrier(full, 1);
      initialize_barrier(empty, 64); // both thread blocks' lanes
      publish_barriers();
    }
    synchronize_cluster();
    for (int round = 0; round < 2; ++round) {
      if (thread_index() == 0) {
        wait(empty, (round & 1) ^ 1);
        arrive_expecting(full, 2 * 1024); // a half from each thread block
        BoxOrigin origin{{32 * round, 0, rank, 0, 0}};
        copy_box_to_cluster(shared_memory() + rank * 1024, arguments.map, origin, full, 3);
      }
      wait(full, round & 1);
      for (int element = thread_index(); element < 1024; element += 32) {
        const unsigned pair = load_shared_word(shared_memory() + element / 2 * 4);
        arguments.out[(rank * 2 + round) * 1024 + element] = static_cast<unsigned short>(pair >> element % 2 * 16);
      }
      arrive_in_cluster(empty, 0);
      arrive_in_cluster(empty, 1);
    }
    synchronize_cluster();
  )"});
  NumberedTensor tensor;
  std::vector<std::uint16_t> out(4 * 1024);
  BoxArguments arguments{tensor.map({64, 4, 2, 1, 1}), {}, out.data()};
  for (std::uint64_t seed = 0; seed < 16; ++seed) {
    std::fill(out.begin(), out.end(), std::uint16_t{0});
    EmulatorOptions options = test_options();
    options.seed = seed;
    kernel.run(arguments, {2, 2, 8192}, options);
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      // A block of the cluster, a round, the half that a block sent, a row of its box, a column.
      const std::size_t round = i / 1024 % 2, sender = i / 512 % 2, row = i / 64 % 8, column = i % 64;
      const auto c = static_cast<std::int64_t>(32 * round + column), x = static_cast<std::int64_t>(row % 4),
                 y = static_cast<std::int64_t>(sender + row / 4);
      wrong += out[i / 512 * 512 + place_of(row, column)] == tensor.at(c, x, y, 0) ? 0 : 1;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("registers move from warps that hand them back to warps that ask") {
  const Tiny kernel({"device/warpgroup.cuh", "int* out;", R"(
    // 256 threads start with 248 each (255, in steps of 8).
    if (warpgroup_index() == 0) {
      claim_registers<256>();
    } else {
      release_registers<240>();
    }
    arguments.out[thread_index()] = 1;
  )",
                     256});
  std::array<int, 256> out{};
  struct {
    int* out;
  } arguments{out.data()};
  kernel.run(arguments, {});
  CHECK(std::count(out.begin(), out.end(), 1) == 256);
}

} // namespace
} // namespace tilewright::testing
