// Asynchronous matrix products.
#include <algorithm>

#include <fmt/format.h>

#include "emulator/multiprocessor.hpp"
#include "emulator/shared_matrix.cuh"

namespace tilewright::emulator {
namespace {

constexpr std::size_t warps_per_group = 4;
constexpr std::uint32_t rows_per_warp = 16;
constexpr const char* touching =
    "an accumulator may be touched before its first product and after the wait for the last";

/// Calls visit(address) for each chunk of shared memory that the warp's product reads. Descriptors hold 18 bits of an
/// address, which is all of a thread block's shared memory.
template <class Visit> void for_each_operand_chunk(const ProductOperands& operands, Visit visit) {
  const MatrixDescriptor a = decode_descriptor(operands.a_descriptor), b = decode_descriptor(operands.b_descriptor);
  const auto columns = static_cast<std::uint32_t>(operands.columns);
  const std::uint32_t first_row = static_cast<std::uint32_t>(operands.warp) * rows_per_warp;
  for (std::uint32_t i = 0; operands.a_in_shared && i < rows_per_warp * 2; ++i)
    visit(chunk_k_in_columns(a, first_row + i / 2, i % 2));
  for (std::uint32_t i = 0; i < columns * 2; ++i) // 16 k x columns elements of 2 bytes
    visit(operands.b_k_in_rows ? chunk_k_in_rows(b, i % 16, i / 16) : chunk_k_in_columns(b, i / 2, i % 2));
}

} // namespace

void Multiprocessor::fence_products(Fiber& fiber) { products_[fiber.warp->number].fence(); }

void Multiprocessor::check_accumulator(Fiber& fiber, const float* registers, Place place) {
  if (products_[fiber.warp->number].holds(static_cast<std::size_t>(lane_of(fiber)), registers))
    throw fault(fiber, place, "an accumulator is used before wait_for_products", touching);
}

void Multiprocessor::commit_products(Fiber& fiber) {
  products_[fiber.warp->number].commit();
  if (plan_->check_races)
    races_.close_group(RaceDetector::Kind::products, fiber.warp->number);
}

void Multiprocessor::check_operands(const Fiber& fiber, const ProductRequest& request, Place place) {
  const WarpExchange& exchange = fiber.warp->exchange;
  for (const auto& descriptor : exchange.descriptor)
    if (std::any_of(std::begin(descriptor), std::end(descriptor),
                    [&](auto of_lane) { return of_lane != descriptor[0]; }))
      throw fault(fiber, place, "lanes of the warp name different operands", "a product's operands are the warp's");
  if (!decode_descriptor(request.operands.b_descriptor).supported ||
      (request.operands.a_in_shared && !decode_descriptor(request.operands.a_descriptor).supported))
    throw fault(fiber, place, "an operand's descriptor has another swizzle, or a base offset",
                "the emulator knows the 128-byte swizzle without a base offset");
  for_each_operand_chunk(request.operands, [&](std::uint32_t address) {
    if (std::uint64_t{address - shared_base} + chunk_bytes > fiber.shared_bytes)
      throw fault(fiber, place, fmt::format("a product reads shared address {}", address),
                  fmt::format("the thread block has the {} bytes from {} on", fiber.shared_bytes, shared_base));
    if (plan_->copy_engine)
      check_fenced(fiber, *fiber.thread_block, address, chunk_bytes, "a product", place);
    if (plan_->check_races)
      refuse_race(fiber, place,
                  races_.start_read(RaceDetector::Kind::products, fiber.warp->number, fiber.number, fiber.rank,
                                    address - shared_base, chunk_bytes, place),
                  "a product reads", address);
  });
}

/// The warps of a warpgroup need not come at the same time, but with the same products.
void Multiprocessor::check_agreement(const Fiber& fiber, const ProductRequest& request, Place place) {
  WarpgroupProducts& group = warpgroups_[fiber.warp->number / warps_per_group];
  std::uint64_t product = mix(static_cast<std::uint64_t>(place.line));
  for (const std::uint64_t part : {request.operands.a_descriptor, request.operands.b_descriptor,
                                   static_cast<std::uint64_t>(request.operands.columns)})
    product = mix(product ^ part);
  std::size_t& count = group.count[fiber.warp->number % warps_per_group];
  if (count == group.issued.size())
    group.issued.push_back(product);
  if (group.issued[count] != product)
    throw fault(fiber, place, "the warps of a warpgroup issue different products",
                "all four issue the same products, in the same order");
  ++count;
  if (std::all_of(std::begin(group.count), std::end(group.count), [&](std::size_t of) { return of == count; })) {
    group.issued.clear();
    std::fill(std::begin(group.count), std::end(group.count), 0);
  }
}

void Multiprocessor::issue_product(Fiber& fiber, const ProductRequest& request, Place place) {
  check_operands(fiber, request, place);
  check_agreement(fiber, request, place);
  ++counters_.matrix_instructions;
  ProductQueue& products = products_[fiber.warp->number];
  if (!products.fenced())
    throw fault(fiber, place, "issues a product without a fence since the last wait",
                "fence_products must stand between what ordinary instructions do with registers and products");
  products.issue(request);
  if (completes_at_once())
    products.compute();
}

void Multiprocessor::wait_for_products(Fiber& fiber, int pending, Place place) {
  if (!products_[fiber.warp->number].wait(pending))
    throw fault(fiber, place, "an accumulator was written to while products into it were in flight", touching);
  for (std::size_t lane = 0; plan_->check_races && lane < warp_lanes; ++lane)
    races_.wait_for_groups(RaceDetector::Kind::products, fiber.warp->number, fiber.warp->first_fiber + lane,
                           static_cast<std::uint32_t>(pending));
}

} // namespace tilewright::emulator
