#include "emulator/race_detector.hpp"

#include <algorithm>

#include <fmt/format.h>

#include "emulator/names.hpp"
#include <tilewright/error.hpp>

namespace tilewright::emulator {
namespace {

constexpr std::uint32_t word_bytes = 4;

// Beside the threads: a copy actor for each thread and some hundred barriers and warps.
constexpr std::size_t most_other_actors(std::size_t threads) { return threads + 512; }

std::uint64_t key(std::uint64_t high, std::uint64_t low) { return high << 32 | low; }

} // namespace

void RaceDetector::begin(std::size_t threads, std::size_t blocks, std::size_t shared_bytes) {
  threads_ = threads;
  width_ = threads + most_other_actors(threads);
  clocks_.resize(threads);
  for (std::size_t thread = 0; thread < threads; ++thread) {
    clocks_[thread].assign(2 * width_, 0);
    next_epoch(thread, Ordered::all);
  }
  names_.clear();
  groups_.clear();
  barriers_.clear();
  words_.resize(blocks);
  for (auto& words : words_) {
    words.resize((shared_bytes + word_bytes - 1) / word_bytes);
    for (Word& word : words) {
      word.writer = Word::nobody;
      word.readers.clear();
      word.equals.clear();
      word.before.clear();
    }
  }
}

void RaceDetector::next_epoch(std::size_t thread, Ordered ordered) {
  if (ordered == Ordered::all)
    ++clocks_[thread][thread];
  ++clocks_[thread][width_ + thread];
}

void RaceDetector::join(Clock& into, const Clock& from, Ordered ordered) const {
  std::uint32_t* const to = into.data();
  const std::uint32_t* const other = from.data();
  for (std::size_t i = ordered == Ordered::all ? 0 : width_; i < 2 * width_; ++i)
    to[i] = std::max(to[i], other[i]);
}

RaceDetector::Actor RaceDetector::new_actor(std::string name) {
  if (threads_ + names_.size() >= width_)
    throw Error(ErrorCode::internal, "the race detector has run out of actors",
                fmt::format("{} beside the threads", most_other_actors(threads_)),
                "switch EmulatorOptions::check_races off, or raise most_other_actors");
  names_.push_back(std::move(name));
  return static_cast<Actor>(threads_ + names_.size() - 1);
}

std::string RaceDetector::name_of(Actor actor) const {
  return actor < threads_ ? fmt::format("thread {} of the cluster", actor) : names_[actor - threads_];
}

RaceDetector::Groups& RaceDetector::groups(Kind kind, std::size_t owner) {
  const auto [found, is_new] = groups_.try_emplace(key(static_cast<std::uint64_t>(kind), owner), Groups{});
  if (is_new)
    found->second.actor = new_actor(kind == Kind::products ? fmt::format("a product of warp {}", owner)
                                    : kind == Kind::copies ? fmt::format("an asynchronous copy of thread {}", owner)
                                                           : fmt::format("a box that thread {} stores", owner));
  return found->second;
}

RaceDetector::Barrier& RaceDetector::barrier(std::size_t block, std::uint32_t address) {
  const auto [found, is_new] = barriers_.try_emplace(key(block, address), Barrier{});
  if (is_new)
    found->second = {Clock(2 * width_), Clock(2 * width_),
                     new_actor(fmt::format("a box that counts on the barrier at {}", address))};
  return found->second;
}

std::string RaceDetector::race_with(const Reader& access, bool write) const {
  return fmt::format("a race with {}, which {} there at {}: nothing orders the two", name_of(access.actor),
                     write ? "writes" : "reads", to_string(access.place));
}

RaceDetector::Complaint RaceDetector::check_read(const Clock& clock, const Word& word) const {
  if (word.writer == Word::nobody)
    return "which nobody has written";
  const auto known = [&](const Reader& writer) { return writer.epoch <= clock[writer.actor]; };
  const Reader last{word.writer, word.epoch, word.place};
  if (known(last) || std::any_of(word.equals.begin(), word.equals.end(), known))
    return std::nullopt;
  return race_with(last, true);
}

/// Lanes of one warp that store to one word by one statement: one of them stays, and kernels store the same value.
/// Where they have met meanwhile it is another round of a loop.
bool RaceDetector::stored_together(const Clock& clock, const Word& word, Actor actor, Place place) const {
  return word.writer < threads_ && actor < threads_ && word.writer / warp_lanes == actor / warp_lanes &&
         word.place.line == place.line && word.place.file == place.file && word.epoch > clock[width_ + word.writer];
}

/// Who has read the last write knew of it, so whoever knows of the reads need not know of the write.
RaceDetector::Complaint RaceDetector::check_write(const Clock& clock, const Word& word) const {
  for (const Reader& reader : word.readers)
    if (reader.epoch > clock[width_ + reader.actor])
      return race_with(reader, false);
  for (const Reader& writer : word.equals)
    if (writer.epoch > clock[writer.actor])
      return race_with(writer, true);
  if ((word.readers.empty() || !word.equals.empty()) && word.writer != Word::nobody && word.epoch > clock[word.writer])
    return race_with({word.writer, word.epoch, word.place}, true);
  return std::nullopt;
}

/// A store of the value that the last write has left: it might as well have been the first of the two.
RaceDetector::Complaint RaceDetector::check_equal(const Clock& clock, const Word& word) const {
  for (const auto& [access, write] : word.before)
    if (access.epoch > clock[(write ? 0 : width_) + access.actor])
      return race_with(access, write);
  return std::nullopt;
}

RaceDetector::Complaint RaceDetector::read_as(Actor actor, std::uint32_t epoch, const Clock& clock, std::size_t block,
                                              std::uint32_t offset, std::uint32_t bytes, Place place) {
  for (std::uint32_t index = offset / word_bytes; index * word_bytes < offset + bytes; ++index) {
    Word& word = words_[block][index];
    if (auto complaint = check_read(clock, word))
      return complaint;
    const auto known = [&](const Reader& reader) {
      return reader.actor == actor || reader.epoch <= clock[width_ + reader.actor];
    };
    const auto replaced = std::find_if(word.readers.begin(), word.readers.end(), known);
    if (replaced != word.readers.end())
      *replaced = {actor, epoch, place};
    else
      word.readers.push_back({actor, epoch, place});
  }
  return std::nullopt;
}

RaceDetector::Complaint RaceDetector::write_as(Actor actor, std::uint32_t epoch, const Clock& clock, std::size_t block,
                                               std::uint32_t offset, std::uint32_t bytes, bool changes, Place place) {
  for (std::uint32_t index = offset / word_bytes; index * word_bytes < offset + bytes; ++index) {
    Word& word = words_[block][index];
    if (auto complaint = check_write(clock, word);
        complaint && !(word.readers.empty() && word.equals.empty() && stored_together(clock, word, actor, place))) {
      if (changes || actor >= threads_ || word.writer >= threads_)
        return complaint;
      if (auto earlier = check_equal(clock, word))
        return earlier;
      word.equals.push_back({actor, epoch, place});
      continue;
    }
    word.before.clear();
    if (actor < threads_) {
      if (word.writer != Word::nobody)
        word.before.push_back({{word.writer, word.epoch, word.place}, true});
      for (const Reader& writer : word.equals)
        word.before.push_back({writer, true});
      for (const Reader& reader : word.readers)
        word.before.push_back({reader, false});
    }
    word.readers.clear();
    word.equals.clear();
    word.writer = actor;
    word.epoch = epoch;
    word.place = place;
  }
  return std::nullopt;
}

RaceDetector::Complaint RaceDetector::read(std::size_t thread, std::size_t block, std::uint32_t offset,
                                           std::uint32_t bytes, Place place) {
  const Clock& clock = clocks_[thread];
  return read_as(static_cast<Actor>(thread), clock[width_ + thread], clock, block, offset, bytes, place);
}

RaceDetector::Complaint RaceDetector::write(std::size_t thread, std::size_t block, std::uint32_t offset,
                                            std::uint32_t bytes, bool changes, Place place) {
  const Clock& clock = clocks_[thread];
  return write_as(static_cast<Actor>(thread), clock[thread], clock, block, offset, bytes, changes, place);
}

RaceDetector::Complaint RaceDetector::look(std::size_t thread, std::size_t block, std::uint32_t offset) const {
  return check_read(clocks_[thread], words_[block][offset / word_bytes]);
}

RaceDetector::Complaint RaceDetector::start_read(Kind kind, std::size_t owner, std::size_t thread, std::size_t block,
                                                 std::uint32_t offset, std::uint32_t bytes, Place place) {
  const Groups& open = groups(kind, owner);
  return read_as(open.actor, open.closed + 1, clocks_[thread], block, offset, bytes, place);
}

RaceDetector::Complaint RaceDetector::start_write(Kind kind, std::size_t owner, std::size_t thread, std::size_t block,
                                                  std::uint32_t offset, std::uint32_t bytes, Place place) {
  const Groups& open = groups(kind, owner);
  return write_as(open.actor, open.closed + 1, clocks_[thread], block, offset, bytes, true, place);
}

void RaceDetector::close_group(Kind kind, std::size_t owner) { ++groups(kind, owner).closed; }

void RaceDetector::wait_for_groups(Kind kind, std::size_t owner, std::size_t thread, std::uint32_t pending) {
  const Groups& done = groups(kind, owner);
  const std::uint32_t epoch = done.closed > pending ? done.closed - pending : 0;
  for (const std::size_t half : {std::size_t{0}, width_}) {
    std::uint32_t& known = clocks_[thread][half + done.actor];
    known = std::max(known, epoch);
  }
}

RaceDetector::Complaint RaceDetector::start_box(std::size_t barrier_block, std::uint32_t address, std::uint64_t phase,
                                                std::size_t thread, std::uint32_t offset, std::uint32_t bytes,
                                                Place place) {
  return write_as(barrier(barrier_block, address).engine, static_cast<std::uint32_t>(phase) + 1, clocks_[thread],
                  barrier_block, offset, bytes, true, place);
}

void RaceDetector::arrive(std::size_t thread, std::size_t barrier_block, std::uint32_t address, Ordered ordered) {
  join(barrier(barrier_block, address).arriving, clocks_[thread], ordered);
  next_epoch(thread, ordered);
}

void RaceDetector::complete(std::size_t barrier_block, std::uint32_t address, std::uint64_t phase) {
  Barrier& completed = barrier(barrier_block, address);
  completed.arriving[completed.engine] = completed.arriving[width_ + completed.engine] =
      static_cast<std::uint32_t>(phase);
  completed.released = completed.arriving;
}

void RaceDetector::acquire(std::size_t thread, std::size_t barrier_block, std::uint32_t address) {
  join(clocks_[thread], barrier(barrier_block, address).released, Ordered::all);
}

void RaceDetector::meet(std::span<const std::size_t> threads, Ordered ordered) {
  scratch_.assign(2 * width_, 0);
  for (const std::size_t thread : threads)
    join(scratch_, clocks_[thread], ordered);
  for (const std::size_t thread : threads) {
    const std::size_t first = ordered == Ordered::all ? 0 : width_;
    std::copy(scratch_.begin() + static_cast<std::ptrdiff_t>(first), scratch_.end(),
              clocks_[thread].begin() + static_cast<std::ptrdiff_t>(first));
    next_epoch(thread, ordered);
  }
}

} // namespace tilewright::emulator
