// Puts the fake CUDA driver in place of the real one for one test.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <string>

#include <dlfcn.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include "fakes/cuda/fake_cuda.hpp"

class FakeDriver {
public:
  FakeDriver() {
    setenv("TILEWRIGHT_LIBCUDA", TILEWRIGHT_FAKE_LIBCUDA, 1);
    void* const library = dlopen(TILEWRIGHT_FAKE_LIBCUDA, RTLD_NOW);
    void* const symbol = library == nullptr ? nullptr : dlsym(library, "fake_cuda_state");
    REQUIRE(symbol != nullptr);
    state_ = reinterpret_cast<fake_cuda::StateFunction>(symbol)();
    *state_ = fake_cuda::State{};
  }
  ~FakeDriver() { unsetenv("TILEWRIGHT_LIBCUDA"); }
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;

  fake_cuda::State* operator->() const { return state_; }

  [[nodiscard]] auto count(const std::string& call) const {
    return std::count(state_->calls.begin(), state_->calls.end(), call);
  }

private:
  fake_cuda::State* state_ = nullptr;
};
