// The path of every call: a memory hit makes no allocation, so it builds no string.
#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "cache/fixture.hpp"

namespace {

std::atomic<long> allocations{0};

} // namespace

// For the whole test program. Not inlined, because g++ 12 then takes the pair for a mismatch.
[[gnu::noinline]] void* operator new(std::size_t bytes) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* const memory = std::malloc(bytes))
    return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }

using namespace tilewright;
using namespace tilewright::test;

TEST_CASE("a memory hit allocates nothing and asks neither generator nor compiler") {
  const TemporaryFolder folder;
  CountingCompiler compiler;
  auto toolchain = compiler.toolchain();
  std::atomic<int> generated{0};
  toolchain.generate = [&, generate = toolchain.generate](const Spec& spec) {
    ++generated;
    return generate(spec);
  };
  cache::KernelCache cache({.folder = folder.path}, {}, toolchain);
  const Spec spec = spec_number(64);
  const auto entry = cache.get(spec);
  REQUIRE(generated == 1);
  const long before = allocations;
  REQUIRE(before > 0); // else nothing is counted
  bool same = true;
  for (int hit = 0; hit < 1000; ++hit)
    same = same && cache.get(spec) == entry && cache.find(spec) == entry;
  CHECK(allocations == before);
  CHECK(same);
  CHECK(generated == 1);
  CHECK(compiler.compiles == 1);
}
