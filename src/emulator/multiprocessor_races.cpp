// What the multiprocessor tells the race detector, and what it counts.
#include <algorithm>

#include <fmt/format.h>

#include "emulator/multiprocessor.hpp"

namespace tilewright::emulator {
namespace {

/// Which warp operations make lanes wait for each other's values, and which order memory besides.
bool orders_all(WarpOperation operation) { return operation == WarpOperation::synchronize_warp; }
bool orders_reads(WarpOperation operation) {
  switch (operation) {
  case WarpOperation::vote:
  case WarpOperation::shuffle_xor:
  case WarpOperation::broadcast:
  case WarpOperation::uniform:
  case WarpOperation::minimum_of_lanes:
    return true;
  default:
    return false;
  }
}

/// ldmatrix and stmatrix move 8 rows of 16 bytes at a time: one pass where the rows' places differ modulo 128 bytes.
std::uint64_t bank_conflicts(const WarpExchange& exchange) {
  constexpr std::uint32_t row_bytes = 16, places = 8, rows = 8;
  std::uint64_t conflicts = 0;
  for (std::uint32_t first = 0; first < warp_lanes; first += rows) {
    std::uint32_t occupied = 0;
    for (std::uint32_t lane = first; lane < first + rows; ++lane)
      occupied |= 1U << (exchange.address[lane] / row_bytes % places);
    if (occupied == (1U << places) - 1)
      continue; // one row at each place
    std::uint32_t most = 1;
    for (std::uint32_t place = 0; place < places; ++place) {
      std::uint32_t different = 0;
      for (std::uint32_t lane = first; lane < first + rows; ++lane) {
        const std::uint32_t* const begin = exchange.address + first;
        const std::uint32_t* const end = exchange.address + lane;
        const bool repeated = std::find(begin, end, *end) != end;
        different += !repeated && *end / row_bytes % places == place ? 1 : 0;
      }
      most = std::max(most, different);
    }
    conflicts += most - 1;
  }
  return conflicts;
}

} // namespace

void Multiprocessor::observe(const Fiber& fiber, WarpOperation operation) {
  switch (operation) {
  case WarpOperation::multiply_add:
    ++counters_.matrix_instructions;
    return;
  case WarpOperation::load_matrices:
  case WarpOperation::load_matrices_transposed:
  case WarpOperation::store_matrices:
    counters_.bank_conflicts += bank_conflicts(fiber.warp->exchange);
    return;
  default:
    break;
  }
  if (!plan_->check_races || (!orders_all(operation) && !orders_reads(operation)))
    return;
  meeting_.clear();
  for (std::size_t lane = 0; lane < warp_lanes; ++lane)
    meeting_.push_back(fiber.warp->first_fiber + lane);
  races_.meet(meeting_, orders_all(operation) ? Ordered::all : Ordered::reads);
}

void Multiprocessor::meet(const std::vector<Fiber*>& fibers) {
  if (!plan_->check_races)
    return;
  meeting_.clear();
  for (const Fiber* const fiber : fibers)
    meeting_.push_back(fiber->number);
  races_.meet(meeting_, Ordered::all);
}

void Multiprocessor::refuse_race(const Fiber& fiber, Place place, const RaceDetector::Complaint& complaint,
                                 std::string_view what, std::uint32_t address) const {
  if (complaint)
    throw fault(fiber, place, fmt::format("{} shared address {}: {}", what, address, *complaint),
                "accesses to the same shared memory, one of them a write, must be ordered by barriers and waits");
}

void Multiprocessor::note_global_store(const Fiber& fiber, const void* address, std::uint32_t bytes,
                                       Place place) const {
  if (plan_->stores == nullptr)
    return;
  if (const auto other = plan_->stores->note(address, bytes, {fiber.block, fiber.index, place}))
    throw fault(fiber, place,
                fmt::format("writes global address {}: thread {} of block {} has written there at {}",
                            fmt::ptr(address), other->thread, other->block, to_string(other->place)),
                "in one launch, a word of global memory is written by one thread");
}

} // namespace tilewright::emulator
