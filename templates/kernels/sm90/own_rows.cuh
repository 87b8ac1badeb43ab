// The rows that each consumer owns: their place in shared memory goes to and fro between a loading warp and the
// consumer.
#pragma once

#include "kernels/sm90/ring.cuh"

namespace tilewright {

/// A consumer's place: "full" says that the rows are there, "empty" that they may be overwritten. The note is the
/// number of their block, or no_more_rows.
struct OwnPlace {
  SharedAddress full, empty, note;

  TILEWRIGHT_DEVICE void initialize() const {
    initialize_barrier(full, 1);
    initialize_barrier(empty, 1);
  }
};
constexpr int no_more_rows = -1;

/// What the loading warp sees of all places. All lanes.
template <class Shared> class OwnPlaces {
public:
  TILEWRIGHT_DEVICE explicit OwnPlaces(const Shared& shared) : shared_(shared) {}

  /// As soon as the consumer has handed back the place of its last rows, copy(barrier) brings the next ones: so many
  /// bytes. It is called by one lane.
  template <class Copy> TILEWRIGHT_DEVICE void fill(int consumer, int block, int bytes, Copy copy) {
    const OwnPlace place = wait_until_empty(consumer);
    if (elect_lane()) {
      store_shared(place.note, static_cast<uint32_t>(block));
      arrive_expecting(place.full, bytes);
      copy(place.full);
    }
  }

  /// Tells every consumer that no more rows will come.
  TILEWRIGHT_DEVICE void close() {
#pragma unroll 1
    for (int consumer = 0; consumer < config::consumers; ++consumer) {
      const OwnPlace place = wait_until_empty(consumer);
      if (elect_lane()) {
        store_shared(place.note, static_cast<uint32_t>(no_more_rows));
        arrive(place.full);
      }
    }
  }

private:
  TILEWRIGHT_DEVICE OwnPlace wait_until_empty(int consumer) {
    const OwnPlace place = shared_.own_place(consumer);
    wait(place.empty, (parities_ >> consumer & 1) ^ 1);
    parities_ ^= 1u << consumer;
    return place;
  }

  const Shared& shared_;
  uint32_t parities_ = 0; // of each consumer's phase, a bit each
};

/// What one consumer sees of its place, whose addresses it derives anew each time: kept, they would hold registers
/// around the main loop (4 % of merged lists' speed).
template <class Shared> class OwnRows {
public:
  TILEWRIGHT_DEVICE OwnRows(const Shared& shared, int consumer) : shared_(shared), consumer_(consumer) {}

  /// Waits for the next rows. Returns their block's number, or no_more_rows.
  TILEWRIGHT_DEVICE int next() {
    wait(shared_.own_place(consumer_).full, parity_);
    parity_ ^= 1;
    return block();
  }

  TILEWRIGHT_DEVICE int block() const {
    return static_cast<int>(uniform_shared_word(shared_.own_place(consumer_).note));
  }

  /// One thread, when no other needs the place any more.
  TILEWRIGHT_DEVICE void hand_back() const { arrive(shared_.own_place(consumer_).empty); }

private:
  const Shared& shared_;
  int consumer_;
  uint32_t parity_ = 0;
};

} // namespace tilewright
