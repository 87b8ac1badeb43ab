#include "emulator/stacks.hpp"

#include <cerrno>
#include <cstring>

#include <fmt/format.h>
#include <sys/mman.h>

#include "emulator/sanitizers.hpp"
#include <tilewright/error.hpp>

namespace tilewright::emulator {
namespace {

constexpr std::size_t page_bytes = 4096;
constexpr std::size_t thread_area_bytes = (thread_bytes * thread_places + page_bytes - 1) / page_bytes * page_bytes;

// A frame of an attention kernel is about this long; an odd number of cache lines.
constexpr std::size_t stagger_bytes = std::size_t{33} * 64;
constexpr std::size_t stagger_places = 32;

} // namespace

Stacks::Stacks(std::size_t count) : count_(count), mapped_bytes_((count + 1) * stack_bytes) {
  mapping_ = ::mmap(nullptr, mapped_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED)
    throw Error(ErrorCode::internal,
                fmt::format("{} bytes for the stacks of {} emulated threads cannot be mapped: {}", mapped_bytes_, count,
                            std::strerror(errno)),
                "as much address space is needed", "raise the limit (ulimit -v), or emulate on fewer host threads");
  first_ = (reinterpret_cast<std::uintptr_t>(mapping_) + stack_bytes - 1) / stack_bytes;
  for (std::size_t index = 0; index < count; ++index)
    ::mprotect(bottom(index) - page_bytes, page_bytes, PROT_NONE);
}

Stacks::~Stacks() {
  forget_frames(mapping_, mapped_bytes_);
  ::munmap(mapping_, mapped_bytes_);
}

unsigned char* Stacks::bottom(std::size_t index) const noexcept {
  return reinterpret_cast<unsigned char*>((first_ + index) * stack_bytes) + thread_area_bytes + page_bytes;
}

std::size_t Stacks::bytes(std::size_t index) const noexcept {
  return stack_bytes - thread_area_bytes - page_bytes - index % stagger_places * stagger_bytes;
}

} // namespace tilewright::emulator
