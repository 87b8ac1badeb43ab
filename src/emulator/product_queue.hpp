// Asynchronous matrix products (wgmma) of one warp that have been issued and not been waited for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <list>
#include <vector>

#include "emulator/runtime.cuh"

namespace tilewright::emulator {

/// Products are computed in the order of their issue, at a time between their issue and the wait that covers them: then
/// they read shared memory. From the first product into an accumulator until that wait its registers hold poison:
/// whoever reads them gets NaN, and writing to them is noticed.
class ProductQueue {
public:
  void begin();

  [[nodiscard]] bool empty() const noexcept { return accumulators_.empty(); }

  /// What ordinary instructions wrote to registers so far is there for the products that follow.
  void fence() noexcept { fenced_ = true; }

  /// A product may be issued only if there was a fence since the last wait.
  [[nodiscard]] bool fenced() const noexcept { return fenced_; }

  /// Whether a lane's registers are an accumulator in flight.
  [[nodiscard]] bool holds(std::size_t lane, const float* registers) const noexcept;

  void issue(const ProductRequest& request);
  void commit() noexcept { ++open_group_; }

  /// All products issued so far are computed.
  void compute() { compute_before(open_group_ + 1); }

  /// The groups but the newest `pending` are computed, and accumulators with no product left get their registers back.
  /// False where somebody has written to registers in flight.
  [[nodiscard]] bool wait(int pending);

private:
  struct Accumulator {
    float* registers[warp_lanes];
    int columns;
    std::uint64_t last_group; // that has a product into it
    std::vector<float> sums;  // 16 x columns
  };
  struct Pending {
    ProductRequest request;
    Accumulator* accumulator;
    std::uint64_t group;
  };

  Accumulator* find(const ProductRequest& request) noexcept;
  Accumulator& take_registers(const ProductRequest& request);
  static bool give_back(const Accumulator& accumulator);
  void compute_before(std::uint64_t group);

  std::list<Accumulator> accumulators_, spare_; // in flight; and their memory, to be used again
  std::deque<Pending> pending_;
  std::uint64_t open_group_ = 0;
  bool fenced_ = false;
};

} // namespace tilewright::emulator
