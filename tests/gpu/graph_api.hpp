// Graph capture, for tests.
#pragma once

#include <string>

#include <dlfcn.h>
#include <doctest/doctest.h>

#include "driver/cuda_device.hpp"

namespace tilewright::testing {

/// The entry points that only tests need, from the library that the device has opened. They return a CUresult
/// and act on the calling thread's current context. Signatures: CUDA driver API, cuda.h.
class GraphApi {
public:
  explicit GraphApi(const cuda::Api& api) : library_(dlopen(api.library.c_str(), RTLD_NOW)) {
    REQUIRE(library_ != nullptr);
  }
  ~GraphApi() { dlclose(library_); }
  GraphApi(const GraphApi&) = delete;
  GraphApi& operator=(const GraphApi&) = delete;

  template <typename... Arguments> void call(const char* name, Arguments... arguments) const {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(library_, name));
    CAPTURE(std::string(name));
    const bool found = function != nullptr;
    REQUIRE(found);
    REQUIRE(function(arguments...) == 0);
  }

private:
  void* library_;
};

} // namespace tilewright::testing
