// Finds accesses to shared memory that nothing orders, whatever order this run happened to take (happens-before, by
// vector clocks: after Flanagan and Freund 2009, "FastTrack: efficient and precise dynamic race detection").
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "emulator/runtime.cuh"

namespace tilewright::emulator {

/// What has happened before, in the eyes of one thread: for each actor the last of its epochs that it knows of, for
/// writes in the first half, for reads in the second. Only reads are ordered by what carries no memory order but makes
/// threads wait for each other's values (votes, shuffles), and by releases without memory order.
using Clock = std::vector<std::uint32_t>;

enum class Ordered : std::uint8_t { reads, all };

/// Of one cluster of thread blocks. Actors are its threads and whatever accesses shared memory on its own: a thread's
/// asynchronous copies and outgoing boxes, a warp's products, and the boxes that count on one barrier. Theirs become
/// known to a thread when it waits for them. Memory is watched by words of 4 bytes. Stores of the value that stands
/// there already need no order among themselves or with reads of it, but with whatever came before the first of them.
class RaceDetector {
public:
  void begin(std::size_t threads, std::size_t blocks, std::size_t shared_bytes);

  /// An access by a thread. Says what is wrong with it; nothing where all is right.
  using Complaint = std::optional<std::string>;
  [[nodiscard]] Complaint read(std::size_t thread, std::size_t block, std::uint32_t offset, std::uint32_t bytes,
                               Place place);
  /// changes: whether other bytes stand there.
  [[nodiscard]] Complaint write(std::size_t thread, std::size_t block, std::uint32_t offset, std::uint32_t bytes,
                                bool changes, Place place);
  /// Whether the thread knows of the write to this word: for barriers, which everybody uses at the same time.
  [[nodiscard]] Complaint look(std::size_t thread, std::size_t block, std::uint32_t offset) const;

  /// What a thread starts and an actor does later, in groups that end in the order in which they were closed.
  enum class Kind : std::uint8_t { copies, outgoing, products };
  [[nodiscard]] Complaint start_read(Kind kind, std::size_t owner, std::size_t thread, std::size_t block,
                                     std::uint32_t offset, std::uint32_t bytes, Place place);
  [[nodiscard]] Complaint start_write(Kind kind, std::size_t owner, std::size_t thread, std::size_t block,
                                      std::uint32_t offset, std::uint32_t bytes, Place place);
  void close_group(Kind kind, std::size_t owner);
  /// The thread has waited for all closed groups but the newest `pending`.
  void wait_for_groups(Kind kind, std::size_t owner, std::size_t thread, std::uint32_t pending);

  /// A box that counts on a barrier; phase: the one that runs.
  [[nodiscard]] Complaint start_box(std::size_t barrier_block, std::uint32_t barrier, std::uint64_t phase,
                                    std::size_t thread, std::uint32_t offset, std::uint32_t bytes, Place place);
  void arrive(std::size_t thread, std::size_t barrier_block, std::uint32_t barrier, Ordered ordered);
  /// The barrier's running phase is now `phase`.
  void complete(std::size_t barrier_block, std::uint32_t barrier, std::uint64_t phase);
  void acquire(std::size_t thread, std::size_t barrier_block, std::uint32_t barrier);

  /// These threads have met: each knows what any of them knew.
  void meet(std::span<const std::size_t> threads, Ordered ordered);

private:
  using Actor = std::uint32_t;
  struct Reader {
    Actor actor;
    std::uint32_t epoch;
    Place place;
  };
  struct Predecessor {
    Reader access;
    bool write;
  };
  struct Word {
    static constexpr Actor nobody = ~0U;
    Actor writer = nobody;
    std::uint32_t epoch = 0;
    Place place{};
    std::vector<Reader> readers = {};     // since the last write, without those that happened before another of them
    std::vector<Reader> equals = {};      // later stores of the same value that the last write is not ordered with
    std::vector<Predecessor> before = {}; // what had to happen before the last write, a thread's
  };
  struct Barrier {
    Clock arriving, released;
    Actor engine;
  };
  struct Groups {
    Actor actor;
    std::uint32_t closed = 0;
  };

  Actor new_actor(std::string name);
  Groups& groups(Kind kind, std::size_t owner);
  Barrier& barrier(std::size_t block, std::uint32_t address);
  [[nodiscard]] std::string name_of(Actor actor) const;
  [[nodiscard]] bool stored_together(const Clock& clock, const Word& word, Actor actor, Place place) const;
  [[nodiscard]] Complaint check_equal(const Clock& clock, const Word& word) const;
  [[nodiscard]] std::string race_with(const Reader& access, bool write) const;
  [[nodiscard]] Complaint check_read(const Clock& clock, const Word& word) const;
  [[nodiscard]] Complaint check_write(const Clock& clock, const Word& word) const;
  [[nodiscard]] Complaint read_as(Actor actor, std::uint32_t epoch, const Clock& clock, std::size_t block,
                                  std::uint32_t offset, std::uint32_t bytes, Place place);
  [[nodiscard]] Complaint write_as(Actor actor, std::uint32_t epoch, const Clock& clock, std::size_t block,
                                   std::uint32_t offset, std::uint32_t bytes, bool changes, Place place);
  void join(Clock& into, const Clock& from, Ordered ordered) const;
  void next_epoch(std::size_t thread, Ordered ordered);

  std::size_t threads_ = 0, width_ = 0;
  std::vector<Clock> clocks_; // of threads
  std::vector<std::string> names_;
  std::unordered_map<std::uint64_t, Groups> groups_;
  std::unordered_map<std::uint64_t, Barrier> barriers_;
  std::vector<std::vector<Word>> words_; // of each thread block
  Clock scratch_;
};

} // namespace tilewright::emulator
