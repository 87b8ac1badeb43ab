// The row statistics of the backward pass: for every query row -lse * log2(e), and the sum over head_dim of
// dout * out. Rows without keys, padding rows, and rows that only fill up a block get -inf and 0.
//
// A score's gradient is P (dP - delta), and P dlse where the loss depends on the log-sum-exp, too: so dlse is taken off
// delta, and no other kernel has to know of it.
#include "pattern.cuh"

#include "device/copy.cuh"
#include "device/math.cuh"
#include "patterns/statistics_rows.cuh"

namespace tilewright {

using Element = config::Element;
using KernelArguments = AttentionBackwardArguments<PatternParameters>;

constexpr int threads = config::warps * warp_size;
constexpr int chunk_elements = copy_bytes / element_bytes;
constexpr int lanes_per_row = config::head_dim / chunk_elements; // 16 bytes a lane
constexpr int rows_per_pass = threads / lanes_per_row;
static_assert(config::block_q % rows_per_pass == 0, "the threads must take whole rows");
static_assert(row_statistics_multiple % config::block_q == 0, "blocks of query rows must fill the statistics");
constexpr float log2_of_e = 1.44269504088896341f;

/// The sum over the lane's elements of a * b.
TILEWRIGHT_DEVICE float dot(const Bytes16& a, const Bytes16& b) {
  float sum = 0.f;
#pragma unroll
  for (int i = 0; i < copy_bytes / 4; ++i) {
    sum = fused_multiply_add(unpack_low<Element>(a.words[i]), unpack_low<Element>(b.words[i]), sum);
    sum = fused_multiply_add(unpack_high<Element>(a.words[i]), unpack_high<Element>(b.words[i]), sum);
  }
  return sum;
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_backward_delta(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const AttentionParameters& p = arguments.call.attention;
  const BackwardParameters& backward = arguments.backward;
  const RowStatistics& statistics = backward.statistics;
  const QueryBlock query = pattern_query_block(arguments.call, block_index());
  const int lane = thread_index() % lanes_per_row;
  const auto* out = static_cast<const uint16_t*>(p.output) + query.batch * p.output_strides.batch +
                    query.head * p.output_strides.head + lane * chunk_elements;
  const auto* gradient = static_cast<const uint16_t*>(backward.output_gradient) +
                         query.batch * backward.output_gradient_strides.batch +
                         query.head * backward.output_gradient_strides.head + lane * chunk_elements;
  const float* log_sum_exp =
      p.log_sum_exp + query.batch * p.log_sum_exp_batch_stride + query.head * p.log_sum_exp_head_stride;
  const int64_t first =
      query.batch * statistics.batch_stride + query.head * statistics.head_stride + statistics_row(query, statistics);
#pragma unroll 4
  for (int pass = 0; pass < config::block_q / rows_per_pass; ++pass) {
    const int row = pass * rows_per_pass + thread_index() / lanes_per_row;
    float exponent = negative_infinity(), delta = 0.f;
    if (query.valid(row)) {
      const int64_t token = query.token(row);
      exponent = load_constant(log_sum_exp + token) * -log2_of_e;
      delta = dot(load_constant_bytes(out + token * p.output_strides.token),
                  load_constant_bytes(gradient + token * backward.output_gradient_strides.token));
      if (backward.log_sum_exp_gradient != nullptr && lane == 0) {
        delta -=
            load_constant(backward.log_sum_exp_gradient + query.batch * backward.log_sum_exp_gradient_batch_stride +
                          query.head * backward.log_sum_exp_gradient_head_stride + token);
      }
      // A row without keys has an LSE of -inf, which must not become an exponent of +inf.
      exponent = exponent == -negative_infinity() ? negative_infinity() : exponent;
      delta = exponent == negative_infinity() ? 0.f : delta;
    }
#pragma unroll
    for (int mask = 1; mask < lanes_per_row; mask *= 2) {
      delta += shuffle_xor(delta, mask);
    }
    if (lane == 0) {
      store_global(statistics.exponents + first + row, exponent);
      store_global(statistics.deltas + first + row, delta);
    }
  }
}
