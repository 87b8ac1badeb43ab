// Boxes of tensors between global and shared memory.
#include <algorithm>
#include <cstring>

#include <fmt/format.h>

#include "emulator/multiprocessor.hpp"
#include "emulator/shared_matrix.cuh"

namespace tilewright::emulator {
namespace {

constexpr std::uint32_t box_alignment = static_cast<std::uint32_t>(shared_alignment);

// While copies are under way, one in so many events lets one of them take effect.
constexpr std::uint32_t progress_period = 16;

} // namespace

void Multiprocessor::perhaps_progress() {
  if (!boxes_.empty() && plan_->completion == Completion::seeded && scheduler_.random().one_in(progress_period))
    progress();
}

/// Copies come in any order.
bool Multiprocessor::progress() {
  if (boxes_.empty())
    return false;
  const auto chosen = boxes_.begin() + scheduler_.random().below(static_cast<std::uint32_t>(boxes_.size()));
  const PendingBox box = *chosen;
  *chosen = boxes_.back();
  boxes_.pop_back();
  bring(box);
  return true;
}

void Multiprocessor::bring(const PendingBox& box) {
  ThreadBlock& block = *box.destination;
  SharedBarrier& barrier = barrier_at(*box.issuer, block, box.request.barrier, box.place);
  if (!barrier.published)
    throw fault(*box.issuer, box.place,
                fmt::format("a box's bytes count on the barrier at shared address {}", box.request.barrier),
                "barriers must be published (publish_barriers) before the copy engine uses them");
  unsigned char* const destination = block.shared.get() + (box.request.shared - shared_base);
  if (box.plain != nullptr)
    std::memcpy(destination, box.plain, box.plain_bytes);
  else
    copy_box_to(destination, box.map, box.request.origin);
  if (barrier.bring(box.bytes())) {
    if (plan_->check_races)
      races_.complete(block.rank, box.request.barrier, barrier.phase());
    release_all(barrier.waiting);
  }
}

void Multiprocessor::check_map(Fiber& fiber, const void* map, Place place) {
  if (!read_box_map(map))
    throw fault(fiber, place, fmt::format("uses a tensor map at {}", fmt::ptr(map)),
                "an address that is a multiple of 64, of a map that the executor encoded");
}

BoxMap Multiprocessor::map_of(const Fiber& fiber, const BoxRequest& request, Place place) const {
  const std::optional<BoxMap> map = read_box_map(request.map);
  if (!map || map->rank != std::size(request.origin) || map->box[0] * map->element_bytes != box_row_bytes)
    throw fault(fiber, place, fmt::format("copies a box by a tensor map at {}", fmt::ptr(request.map)),
                "an address that is a multiple of 64, of a map of 5 dimensions and boxes 128 bytes wide");
  return *map;
}

void Multiprocessor::check_box_place(const Fiber& fiber, const ThreadBlock& block, const BoxRequest& request,
                                     std::uint32_t bytes, Place place) const {
  if (request.shared % box_alignment != 0 || std::uint64_t{request.shared - shared_base} + bytes > block.shared_bytes)
    throw fault(fiber, place, fmt::format("copies a box of {} bytes at shared address {}", bytes, request.shared),
                fmt::format("a multiple of {}; the thread block has the {} bytes from {} on", box_alignment,
                            block.shared_bytes, shared_base));
  check_fenced(fiber, block, request.shared, bytes, "the copy engine", place);
}

void Multiprocessor::check_fenced(const Fiber& fiber, const ThreadBlock& block, std::uint32_t address,
                                  std::uint32_t bytes, std::string_view what, Place place) const {
  if (const auto thread = block.unfenced.find(address - shared_base, bytes))
    throw fault(fiber, place,
                fmt::format("{} uses shared memory from {} to {}, where thread {} has stored without a fence", what,
                            address, address + bytes - 1, *thread),
                "stores must be shown by fence_shared_for_copies, by the thread that stored");
}

void Multiprocessor::copy_box_to_shared(Fiber& fiber, const BoxRequest& request, Place place) {
  const BoxMap map = map_of(fiber, request, place);
  if (request.ranks == 0 || request.ranks >> plan_->cluster != 0)
    throw fault(fiber, place, fmt::format("copies a box to thread blocks {:#b} of the cluster", request.ranks),
                fmt::format("the cluster has {} thread blocks", plan_->cluster));
  for (ThreadBlock& block : blocks_) {
    if ((request.ranks >> block.rank & 1) == 0)
      continue;
    check_box_place(fiber, block, request, map.box_bytes(), place);
    const SharedBarrier& barrier = barrier_at(fiber, block, request.barrier, place);
    if (plan_->check_races)
      refuse_race(fiber, place,
                  races_.start_box(block.rank, request.barrier, barrier.phase(), fiber.number,
                                   request.shared - shared_base, map.box_bytes(), place),
                  "copies a box to", request.shared);
    counters_.bytes_to_shared += map.box_bytes();
    const PendingBox box{map, request, &block, &fiber, place, nullptr, 0};
    if (completes_at_once())
      bring(box);
    else
      boxes_.push_back(box);
  }
  scheduler_.yield(fiber);
}

void Multiprocessor::copy_bytes_to_shared(Fiber& fiber, const BytesRequest& request, Place place) {
  ThreadBlock& block = *fiber.thread_block;
  constexpr std::uint32_t unit = 16;
  if (request.bytes == 0 || request.bytes % unit != 0 || request.shared % unit != 0 ||
      reinterpret_cast<std::uintptr_t>(request.source) % unit != 0 ||
      std::uint64_t{request.shared - shared_base} + request.bytes > block.shared_bytes)
    throw fault(fiber, place,
                fmt::format("copies {} bytes from {} to shared address {}", request.bytes, fmt::ptr(request.source),
                            request.shared),
                fmt::format("multiples of {}; the thread block has the {} bytes from {} on", unit, block.shared_bytes,
                            shared_base));
  check_fenced(fiber, block, request.shared, request.bytes, "the copy engine", place);
  const SharedBarrier& barrier = barrier_at(fiber, block, request.barrier, place);
  if (plan_->check_races)
    refuse_race(fiber, place,
                races_.start_box(block.rank, request.barrier, barrier.phase(), fiber.number,
                                 request.shared - shared_base, request.bytes, place),
                "copies bytes to", request.shared);
  counters_.bytes_to_shared += request.bytes;
  const BoxRequest where{nullptr, {}, request.shared, request.barrier, 1U << block.rank};
  const PendingBox bytes{{}, where, &block, &fiber, place, request.source, request.bytes};
  if (completes_at_once())
    bring(bytes);
  else
    boxes_.push_back(bytes);
  scheduler_.yield(fiber);
}

void Multiprocessor::copy_box_to_global(Fiber& fiber, const BoxRequest& request, Place place) {
  const BoxMap map = map_of(fiber, request, place);
  check_box_place(fiber, *fiber.thread_block, request, map.box_bytes(), place);
  if (plan_->check_races)
    refuse_race(fiber, place,
                races_.start_read(RaceDetector::Kind::outgoing, fiber.number, fiber.number, fiber.rank,
                                  request.shared - shared_base, map.box_bytes(), place),
                "copies a box from", request.shared);
  if (plan_->stores != nullptr)
    for (const BoxPiece& piece : pieces_of_box(map, request.origin))
      note_global_store(fiber, piece.address, piece.bytes, place);
  counters_.bytes_from_shared += map.box_bytes();
  OutgoingBoxes& outgoing = outgoing_[fiber.number];
  const bool at_once = completes_at_once();
  if (at_once)
    copy_box_from(fiber.shared + (request.shared - shared_base), map, request.origin);
  outgoing.boxes.push_back({map, request, outgoing.open_group, at_once});
}

void Multiprocessor::commit_box_copies(Fiber& fiber) {
  ++outgoing_[fiber.number].open_group;
  if (plan_->check_races)
    races_.close_group(RaceDetector::Kind::outgoing, fiber.number);
}

/// Boxes are read and written at the same time here, so it is all the same which of the two is waited for.
void Multiprocessor::wait_for_boxes(Fiber& fiber, bool /*only_sources*/) {
  OutgoingBoxes& outgoing = outgoing_[fiber.number];
  const auto open = std::find_if(outgoing.boxes.begin(), outgoing.boxes.end(),
                                 [&](const auto& box) { return box.group == outgoing.open_group; });
  for (auto box = outgoing.boxes.begin(); box != open; ++box)
    if (!box->done)
      copy_box_from(fiber.shared + (box->request.shared - shared_base), box->map, box->request.origin);
  outgoing.boxes.erase(outgoing.boxes.begin(), open);
  if (plan_->check_races)
    races_.wait_for_groups(RaceDetector::Kind::outgoing, fiber.number, fiber.number, 0);
  scheduler_.yield(fiber);
}

void Multiprocessor::fence_shared(Fiber& fiber) {
  if (plan_->copy_engine)
    fiber.thread_block->unfenced.fence(static_cast<std::size_t>(fiber.index));
}

} // namespace tilewright::emulator
