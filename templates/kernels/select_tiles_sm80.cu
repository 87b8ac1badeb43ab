// The coarse stage of video sparse attention: for each query tile, softmax attention over the tiles' means, and the
// topk key tiles with the largest scores, exactly, ascending, equal scores in favour of the lower tile.
//
// A thread block computes a strip of 16 query tiles of one head at a time, in three steps: scores = Q K^T of all key
// tiles; for each row its maximum, sum and threshold; output = P V. Scores are kept as words whose unsigned order is
// the scores' order: the threshold is found by narrowing a range of words, which is exact. Keys and values come
// straight out of the L2 into the matrix instruction's fragments, 16 bytes a lane.
#include "device/copy.cuh"
#include "device/math.cuh"
#include "device/matrix.cuh"
#include "device/warpgroup.cuh"
#include "kernels/tile_parameters.cuh"

#include "config.cuh"

namespace tilewright {

using Element = config::Element;
using KernelArguments = SelectArguments;

constexpr int threads = config::warps * warp_size;
constexpr int strip_rows = config::block_q;
constexpr int group_keys = 16;           // the depth of the matrix instruction in P V, and two of its widths in Q K^T
constexpr int quad_keys = 4 * warp_size; // keys that a warp looks at in one step: 16 bytes of words a lane
constexpr int chunk_elements = 8;        // of 16 bytes
constexpr int panel_columns = 64;        // columns of V that a warp's loads of 16 bytes a lane cover
constexpr int panels = config::head_dim / panel_columns;
static_assert(strip_rows == 16, "the matrix instruction's m");
static_assert(config::warps <= strip_rows, "each warp has a row at least");

/// The larger the score, the larger the word. NaN comes last; 0 is no score at all.
TILEWRIGHT_DEVICE uint32_t word_of(float score) {
  const uint32_t bits = bits_of(score + 0.f); // -0 becomes +0: they are equal
  const uint32_t sign = 0x80000000u;
  return score == score ? ((bits & sign) != 0 ? ~bits : bits | sign) : 1u;
}
TILEWRIGHT_DEVICE float score_of(uint32_t word) {
  return float_of((word & 0x80000000u) != 0 ? word ^ 0x80000000u : ~word);
}

/// The words of a strip: rows of `stride` words, a multiple of 4, of which those from key_tiles on are 0.
struct SharedStrip {
  SharedAddress base;
  int stride;

  TILEWRIGHT_DEVICE SharedAddress at(int row, int key) const {
    return base + static_cast<uint32_t>((row * stride + key) * 4);
  }
  TILEWRIGHT_DEVICE void store(int row, int key, uint32_t word) const { store_shared(at(row, key), word); }
  TILEWRIGHT_DEVICE uint32_t load(int row, int key) const { return load_shared_word(at(row, key)); }
  TILEWRIGHT_DEVICE Bytes16 load_quad(int row, int key) const { return load_shared(at(row, key)); }
};

struct GlobalStrip {
  uint32_t* base;
  int stride;

  TILEWRIGHT_DEVICE uint32_t* at(int row, int key) const { return base + row * stride + key; }
  TILEWRIGHT_DEVICE void store(int row, int key, uint32_t word) const { store_global(at(row, key), word); }
  TILEWRIGHT_DEVICE uint32_t load(int row, int key) const { return load_global(at(row, key)); }
  TILEWRIGHT_DEVICE Bytes16 load_quad(int row, int key) const { return load_global_bytes(at(row, key)); }
};

// Shared memory: each row's reference and inverse sum, then the warps' parts of the output, then the strip.
constexpr int row_words = 2;
constexpr int part_columns = 32;                       // of the output that are summed over the warps at a time
constexpr int part_row_bytes = (part_columns + 4) * 4; // 4 more: neighbouring rows begin in other banks
constexpr int part_bytes = strip_rows * part_row_bytes;
constexpr int parts_offset = strip_rows * row_words * 4;
constexpr int strip_offset = parts_offset + config::warps * part_bytes;
static_assert(strip_offset == config::shared_bytes, "schedule and kernel must agree on the shared memory");

TILEWRIGHT_DEVICE SharedAddress row_reference(int row) { return shared_memory() + static_cast<uint32_t>(row) * 8; }
TILEWRIGHT_DEVICE SharedAddress row_inverse(int row) { return row_reference(row) + 4; }

/// One strip: its head's means and where its rows stand.
struct Place {
  int batch, kv_sequence; // batch * key/value heads + head
  int64_t first_row;      // of all rows of query means
  int rows;               // that exist
  TILEWRIGHT_DEVICE Place(const SelectArguments& p, int strip) {
    const int sequence = strip / p.strips_per_head, first = strip % p.strips_per_head * strip_rows;
    batch = sequence / p.heads;
    kv_sequence = sequence / p.heads_per_kv_head;
    first_row = static_cast<int64_t>(sequence) * p.query_tiles + first;
    rows = p.query_tiles - first < strip_rows ? p.query_tiles - first : strip_rows;
  }
};

TILEWRIGHT_DEVICE int at_most(int value, int limit) { return value < limit ? value : limit; }

/// scores = Q K^T, as words. A matrix product may take its depth in any order, so long as both operands do: a lane's
/// 16 bytes are its elements of two products.
template <class Strip>
TILEWRIGHT_DEVICE void compute_scores(const SelectArguments& p, const Place& place, Strip strip) {
  constexpr int depth_loads = config::head_dim / (4 * chunk_elements);
  const int lane = lane_index(), column = lane % 4, line = lane / 4;
  const auto* queries = static_cast<const uint16_t*>(p.query_means) + place.first_row * config::head_dim;
  const auto* keys = static_cast<const uint16_t*>(p.key_means) +
                     static_cast<int64_t>(place.kv_sequence) * p.key_tiles * config::head_dim;
  const int32_t* sizes = p.key_sizes == nullptr ? nullptr : p.key_sizes + place.batch * p.key_size_batch_stride;
  const auto chunk = [&](const uint16_t* rows, int row, int load) {
    return load_constant_bytes(rows + row * config::head_dim + (column + 4 * load) * chunk_elements);
  };
  uint32_t query[2 * depth_loads][4];
#pragma unroll
  for (int load = 0; load < depth_loads; ++load) {
    const Bytes16 upper = chunk(queries, at_most(line, place.rows - 1), load);
    const Bytes16 lower = chunk(queries, at_most(line + 8, place.rows - 1), load);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      uint32_t(&fragment)[4] = query[2 * load + half];
      fragment[0] = upper.words[2 * half];
      fragment[1] = lower.words[2 * half];
      fragment[2] = upper.words[2 * half + 1];
      fragment[3] = lower.words[2 * half + 1];
    }
  }
  const int padded_keys = (p.key_tiles + quad_keys - 1) / quad_keys * quad_keys;
#pragma unroll 1
  for (int first = warp_index() * group_keys; first < padded_keys; first += config::warps * group_keys) {
    float scores[2][4] = {};
    Bytes16 key[2][depth_loads];
#pragma unroll
    for (int group = 0; group < 2; ++group) {
#pragma unroll
      for (int load = 0; load < depth_loads; ++load) {
        key[group][load] = chunk(keys, at_most(first + 8 * group + line, p.key_tiles - 1), load);
      }
    }
#pragma unroll
    for (int load = 0; load < depth_loads; ++load) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
#pragma unroll
        for (int group = 0; group < 2; ++group) {
          multiply_add<Element>(scores[group], query[2 * load + half], key[group][load].words[2 * half],
                                key[group][load].words[2 * half + 1]);
        }
      }
    }
#pragma unroll
    for (int group = 0; group < 2; ++group) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int number = first + 8 * group + 2 * column + i;
        const bool exists = number < p.key_tiles;
        const bool empty = exists && sizes != nullptr && load_constant(sizes + number) <= 0;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float score = empty ? negative_infinity() : scores[group][2 * half + i];
          strip.store(line + 8 * half, number, exists ? word_of(score) : 0u);
        }
      }
    }
  }
}

/// What every probability is multiplied by until the end, so that small ones are no subnormal numbers of fp16.
constexpr float probability_exponent = 10.f;

/// A row's softmax reference and inverse sum into shared memory, and its LSE. One warp.
template <class Strip>
TILEWRIGHT_DEVICE void sum_row(const SelectArguments& p, const Place& place, Strip strip, int row, uint32_t largest) {
  const float maximum_score = score_of(largest);
  const bool has_keys = maximum_score != negative_infinity();
  const float reference = has_keys ? maximum_score * p.scale_log2 : 0.f;
  float sum = 0.f;
#pragma unroll 2
  for (int key = lane_index() * 4; key < p.key_tiles; key += quad_keys) {
    const Bytes16 words = strip.load_quad(row, key);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float exponential =
          exp2_approximate(fused_multiply_add(score_of(words.words[i]), p.scale_log2, -reference));
      sum += words.words[i] == 0 ? 0.f : exponential;
    }
  }
#pragma unroll
  for (int mask = 1; mask < warp_size; mask *= 2) {
    sum += shuffle_xor(sum, mask);
  }
  if (lane_index() == 0) {
    store_shared(row_reference(row), bits_of(reference - probability_exponent));
    store_shared(row_inverse(row), bits_of(has_keys ? reciprocal(sum * 1024.f) : 0.f)); // 2^probability_exponent
    if (p.log_sum_exp != nullptr) {
      const float log2_sum = reference + log2_approximate(sum);
      store_global(p.log_sum_exp + place.first_row + row, has_keys ? log2_sum * natural_log_of_2 : negative_infinity());
    }
  }
}

/// The row's threshold: all words above it are taken, and so many that equal it, the first ones.
struct Threshold {
  uint32_t word;
  int ties;
};

/// Cuts the range of words in four at each step: the loads' latency counts, not the comparisons.
template <class Strip>
TILEWRIGHT_DEVICE Threshold find_threshold(const SelectArguments& p, Strip strip, int row, uint32_t largest) {
  constexpr int cuts = 3;
  uint32_t low = 0, high = largest + 1; // at least topk words are not below low, fewer than topk not below high
  int above = 0;                        // words that are not below high
#pragma unroll 1
  while (high - low > 1) {
    const uint32_t quarter = high - low < cuts + 1 ? 1u : (high - low) / (cuts + 1);
    uint32_t cut[cuts];
    int count[cuts];
#pragma unroll
    for (int i = 0; i < cuts; ++i) {
      const uint32_t place = low + (i + 1) * quarter;
      cut[i] = place < high ? place : high - 1;
      count[i] = 0;
    }
#pragma unroll 4
    for (int key = lane_index() * 4; key < p.key_tiles; key += quad_keys) {
      const Bytes16 words = strip.load_quad(row, key);
#pragma unroll
      for (int i = 0; i < cuts; ++i) {
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          count[i] += words.words[j] >= cut[i] ? 1 : 0;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < cuts; ++i) { // ascending: the last cut that still has enough, the first that has too few
      count[i] = sum_of_lanes(count[i]);
      if (count[i] == p.topk) {
        return {cut[i], p.topk};
      }
      if (count[i] > p.topk) {
        low = cut[i];
      } else if (cut[i] < high) {
        high = cut[i];
        above = count[i];
      }
    }
  }
  return {low, p.topk - above};
}

template <class Strip>
TILEWRIGHT_DEVICE void write_list(const SelectArguments& p, const Place& place, Strip strip, int row,
                                  Threshold threshold) {
  const int lane = lane_index();
  const uint32_t lanes_below = (1u << lane) - 1;
  int32_t* list = p.indices + (place.first_row + row) * p.topk;
  int ties = 0;
#pragma unroll 4
  for (int first = 0; first < p.key_tiles; first += warp_size) {
    const int key = first + lane;
    const uint32_t word = key < p.key_tiles ? strip.load(row, key) : 0u;
    const uint32_t tied = vote(word == threshold.word);
    const bool taken =
        word > threshold.word || (word == threshold.word && ties + count_bits(tied & lanes_below) < threshold.ties);
    const uint32_t all_taken = vote(taken);
    if (taken) {
      store_global(list + count_bits(all_taken & lanes_below), key);
    }
    list += count_bits(all_taken);
    ties += count_bits(tied);
  }
  if (lane == 0) {
    store_global(p.counts + place.first_row + row, p.topk);
  }
}

/// Each warp looks at whole rows.
template <class Strip> TILEWRIGHT_DEVICE void select_keys(const SelectArguments& p, const Place& place, Strip strip) {
#pragma unroll 1
  for (int row = warp_index(); row < place.rows; row += config::warps) {
    uint32_t largest = 0;
#pragma unroll 4
    for (int key = lane_index() * 4; key < p.key_tiles; key += quad_keys) {
      const Bytes16 words = strip.load_quad(row, key);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        largest = words.words[i] > largest ? words.words[i] : largest;
      }
    }
    largest = maximum_of_lanes(largest);
    sum_row(p, place, strip, row, largest);
    write_list(p, place, strip, row, find_threshold(p, strip, row, largest));
  }
}

/// Two rows' words to one register of pairs: the elements of the same half.
TILEWRIGHT_DEVICE uint32_t low_halves(uint32_t first, uint32_t second) { return (first & 0xffffu) | second << 16; }
TILEWRIGHT_DEVICE uint32_t high_halves(uint32_t first, uint32_t second) { return first >> 16 | (second & 0xffff0000u); }

/// A warp's part of P V. Values are read 8 columns of a row at a time: product j of a panel multiplies columns j, 8 +
/// j, 16 + j, ..., so that a lane's results are columns that follow each other.
using Output = float[panels][chunk_elements][4];

template <class Strip>
TILEWRIGHT_DEVICE void multiply_probability_value(const SelectArguments& p, const Place& place, Strip strip,
                                                  Output& output) {
  const int lane = lane_index(), column = lane % 4, line = lane / 4;
  const auto* values = static_cast<const uint16_t*>(p.value_means) +
                       static_cast<int64_t>(place.kv_sequence) * p.key_tiles * config::head_dim + line * chunk_elements;
  const auto reference_of = [&](int row) {
    return row < place.rows ? float_of(load_shared_word(row_reference(row))) : 0.f;
  };
  const float reference[2] = {reference_of(line), reference_of(line + 8)};
#pragma unroll 1
  for (int first = warp_index() * group_keys; first < p.key_tiles; first += config::warps * group_keys) {
    const auto probability = [&](int half, int key) {
      const uint32_t word = strip.load(line + 8 * half, key);
      const float exponential = exp2_approximate(fused_multiply_add(score_of(word), p.scale_log2, -reference[half]));
      return word == 0 || line + 8 * half >= place.rows ? 0.f : exponential;
    };
    const int key = first + 2 * column;
    uint32_t a[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      a[i] = pack<Element>(probability(i % 2, key + i / 2 * 8), probability(i % 2, key + i / 2 * 8 + 1));
    }
#pragma unroll
    for (int panel = 0; panel < panels; ++panel) {
      Bytes16 rows[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int row = at_most(key + i / 2 * 8 + i % 2, p.key_tiles - 1);
        rows[i] = load_constant_bytes(values + row * config::head_dim + panel * panel_columns);
      }
#pragma unroll
      for (int j = 0; j < chunk_elements; ++j) {
        const int word = j / 2;
        const auto pair = [&](int i) {
          return j % 2 == 0 ? low_halves(rows[i].words[word], rows[i + 1].words[word])
                            : high_halves(rows[i].words[word], rows[i + 1].words[word]);
        };
        multiply_add<Element>(output[panel][j], a, pair(0), pair(2));
      }
    }
  }
}

/// Sums the warps' parts and writes the rows. A lane holds, of row line and of row line + 8, columns 16 column ..
/// 16 column + 15 of each panel; a part is 8 of these 16.
TILEWRIGHT_DEVICE void store_output(const SelectArguments& p, const Place& place, const Output& output) {
  const int lane = lane_index(), column = lane % 4, line = lane / 4;
  const SharedAddress parts = shared_memory() + parts_offset;
#pragma unroll
  for (int part = 0; part < 2 * panels; ++part) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < chunk_elements; j += 4) {
        Bytes16 bytes;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          bytes.words[i] = bits_of(output[part / 2][j + i][2 * half + part % 2]);
        }
        store_shared(parts + static_cast<uint32_t>(warp_index() * part_bytes + (line + 8 * half) * part_row_bytes +
                                                   (column * chunk_elements + j) * 4),
                     bytes);
      }
    }
    synchronize_block();
#pragma unroll 1
    for (int i = thread_index(); i < strip_rows * part_columns; i += threads) {
      const int row = i / part_columns, place_in_row = i % part_columns;
      float sum = 0.f;
#pragma unroll
      for (int warp = 0; warp < config::warps; ++warp) {
        sum += float_of(load_shared_word(
            parts + static_cast<uint32_t>(warp * part_bytes + row * part_row_bytes + place_in_row * 4)));
      }
      if (row < place.rows) {
        const int head_column = part / 2 * panel_columns + place_in_row / chunk_elements * 2 * chunk_elements +
                                part % 2 * chunk_elements + place_in_row % chunk_elements;
        store_global(p.coarse_output + (place.first_row + row) * config::head_dim + head_column,
                     sum * float_of(load_shared_word(row_inverse(row))));
      }
    }
    synchronize_block();
  }
}

template <class Strip> TILEWRIGHT_DEVICE void compute_strip(const SelectArguments& p, const Place& place, Strip strip) {
  compute_scores(p, place, strip);
  synchronize_block();
  select_keys(p, place, strip);
  synchronize_block();
  if (p.coarse_output != nullptr) {
    Output output = {};
    multiply_probability_value(p, place, strip, output);
    store_output(p, place, output);
  }
}

} // namespace tilewright

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
select_tiles(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  const SelectArguments& p = arguments;
#pragma unroll 1
  for (int strip = block_index(); strip < p.strips_in_all; strip += grid_size()) {
    const Place place(p, strip);
    if (p.strips == nullptr) {
      compute_strip(p, place, SharedStrip{shared_memory() + strip_offset, p.strip_stride});
    } else {
      compute_strip(
          p, place,
          GlobalStrip{p.strips + static_cast<int64_t>(block_index()) * strip_rows * p.strip_stride, p.strip_stride});
    }
  }
}
