#include "emulator/product_queue.hpp"

#include <algorithm>
#include <bit>

namespace tilewright::emulator {
namespace {

constexpr std::size_t rows = 16;
constexpr std::uint32_t poisoned_register = 0x7fbadbadU; // a NaN

/// Calls visit(register, sum) for each register of a warp's accumulator: lane i holds, of each 8 columns c, in 4c and
/// 4c + 1 row i / 4, columns 8c + 2 (i % 4) and the next, in 4c + 2 and 4c + 3 the row 8 further down (PTX ISA,
/// "Register Fragments and Shared Memory Matrix Layouts" of wgmma).
template <class Registers, class Sums, class Visit>
void for_each_register(Registers& registers, Sums& sums, std::size_t columns, Visit visit) {
  for (std::size_t lane = 0; lane < warp_lanes; ++lane)
    for (std::size_t index = 0; index < columns / 2; ++index) {
      const std::size_t row = lane / 4 + index / 2 % 2 * 8;
      const std::size_t column = index / 4 * 8 + lane % 4 * 2 + index % 2;
      visit(registers[lane][index], sums[row * columns + column]);
    }
}

} // namespace

void ProductQueue::begin() {
  pending_.clear();
  spare_.splice(spare_.end(), accumulators_);
  open_group_ = 0;
  fenced_ = false;
}

bool ProductQueue::holds(std::size_t lane, const float* registers) const noexcept {
  return std::any_of(accumulators_.begin(), accumulators_.end(),
                     [&](const Accumulator& accumulator) { return accumulator.registers[lane] == registers; });
}

ProductQueue::Accumulator* ProductQueue::find(const ProductRequest& request) noexcept {
  for (Accumulator& accumulator : accumulators_)
    if (std::equal(std::begin(accumulator.registers), std::end(accumulator.registers), request.accumulator))
      return &accumulator;
  return nullptr;
}

ProductQueue::Accumulator& ProductQueue::take_registers(const ProductRequest& request) {
  if (spare_.empty())
    spare_.emplace_back();
  accumulators_.splice(accumulators_.end(), spare_, spare_.begin());
  Accumulator& accumulator = accumulators_.back();
  std::copy(std::begin(request.accumulator), std::end(request.accumulator), accumulator.registers);
  accumulator.columns = request.operands.columns;
  const auto columns = static_cast<std::size_t>(accumulator.columns);
  accumulator.sums.resize(rows * columns);
  for_each_register(accumulator.registers, accumulator.sums, columns, [](float& of_lane, float& sum) {
    sum = of_lane;
    of_lane = std::bit_cast<float>(poisoned_register);
  });
  return accumulator;
}

void ProductQueue::issue(const ProductRequest& request) {
  Accumulator* const known = find(request);
  Accumulator& accumulator = known != nullptr ? *known : take_registers(request);
  accumulator.last_group = open_group_;
  pending_.push_back({request, &accumulator, open_group_});
}

void ProductQueue::compute_before(std::uint64_t group) {
  for (; !pending_.empty() && pending_.front().group < group; pending_.pop_front()) {
    const auto& [request, accumulator, of_group] = pending_.front();
    if (!request.accumulate)
      std::fill(accumulator->sums.begin(), accumulator->sums.end(), 0.f);
    request.work(request.operands, accumulator->sums.data());
  }
}

bool ProductQueue::give_back(const Accumulator& accumulator) {
  bool untouched = true;
  for_each_register(accumulator.registers, accumulator.sums, static_cast<std::size_t>(accumulator.columns),
                    [&](float& of_lane, const float& sum) {
                      untouched = untouched && std::bit_cast<std::uint32_t>(of_lane) == poisoned_register;
                      of_lane = sum;
                    });
  return untouched;
}

bool ProductQueue::wait(int pending) {
  const auto left = static_cast<std::uint64_t>(pending);
  const std::uint64_t first_left = open_group_ > left ? open_group_ - left : 0;
  compute_before(first_left);
  bool untouched = true;
  for (auto accumulator = accumulators_.begin(); accumulator != accumulators_.end();) {
    const auto here = accumulator++;
    if (here->last_group < first_left) {
      untouched = give_back(*here) && untouched;
      spare_.splice(spare_.end(), accumulators_, here);
    }
  }
  fenced_ = false;
  return untouched;
}

} // namespace tilewright::emulator
