// tilewright._native: patterns and engines for python/tilewright; the operators are in calls.cpp. Signatures:
// _native.pyi.
#include <memory>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "calls.hpp"
#include "engine.hpp"
#include "views.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/runtime.hpp>

namespace nb = nanobind;

namespace tilewright::python {
namespace {

Jit jit_from(const std::string& name) {
  if (name == "allow")
    return Jit::allow;
  if (name == "warn")
    return Jit::warn;
  if (name == "forbid")
    return Jit::forbid;
  throw Error(ErrorCode::invalid_argument, "jit is " + name, "allow, warn or forbid", "choose one of them");
}

/// The library may warn from any thread, with or without Python's lock.
std::function<void(std::string_view)> message_callback(nb::handle callback) {
  if (callback.is_none())
    return {};
  // Released under the lock, whichever thread lets the last runtime go.
  const std::shared_ptr<nb::object> kept(new nb::object(nb::borrow(callback)), [](nb::object* held) {
    const nb::gil_scoped_acquire lock;
    delete held;
  });
  return [kept](std::string_view message) {
    const nb::gil_scoped_acquire lock;
    try {
      (*kept)(nb::str(message.data(), message.size()));
    } catch (nb::python_error& error) {
      error.discard_as_unraisable("tilewright's message callback");
    }
  };
}

/// kind: cuda, emulator, reference, or idle, which is for measuring; ordinal: of the CUDA device, -1 for the current
/// one.
std::unique_ptr<Engine> make_engine(const std::string& kind, int ordinal, const std::string& architecture,
                                    const std::string& folder, const std::string& read_only_folder,
                                    const std::string& jit, std::uint64_t maximum_bytes, std::uint64_t maximum_entries,
                                    std::uint64_t seed, nb::handle on_message) {
  RuntimeOptions options;
  options.device = ordinal;
  options.cache = {.folder = folder,
                   .read_only_folder = read_only_folder,
                   .jit = jit_from(jit),
                   .maximum_bytes = maximum_bytes,
                   .maximum_entries = maximum_entries};
  options.on_message = message_callback(on_message);
  const nb::gil_scoped_release unlocked;
  if (kind == "cuda")
    return std::make_unique<Engine>(std::make_unique<Runtime>(std::move(options)));
  if (kind == "emulator") {
    EmulatorOptions emulator{.seed = seed, .architecture = parse_architecture(architecture)};
    if (!folder.empty())
      emulator.folder = std::filesystem::path(folder) / "emulator";
    return std::make_unique<Engine>(std::make_unique<Runtime>(make_emulator(emulator), std::move(options)));
  }
  if (kind == "reference")
    return std::make_unique<Engine>(Engine::Kind::reference);
  if (kind == "idle")
    return std::make_unique<Engine>(Engine::Kind::idle);
  throw Error(ErrorCode::invalid_argument, "device is " + kind, "cuda, cuda:N, emulator or reference",
              "choose one of them");
}

/// By the fields' names, as the Python class of that name takes them.
nb::dict cache_statistics(const Engine& engine) {
  const CacheStatistics statistics = engine.cache_statistics();
  nb::dict counts;
  counts["memory_hits"] = statistics.memory_hits;
  counts["disk_hits"] = statistics.disk_hits;
  counts["read_only_hits"] = statistics.read_only_hits;
  counts["remote_hits"] = statistics.remote_hits;
  counts["compiles"] = statistics.compiles;
  counts["joined"] = statistics.joined;
  counts["lock_timeouts"] = statistics.lock_timeouts;
  counts["corrupt_entries"] = statistics.corrupt_entries;
  counts["failed_writes"] = statistics.failed_writes;
  return counts;
}

Pattern sliding_tile(nb::handle canvas, nb::handle tile, nb::handle windows, nb::handle text_length) {
  SlidingTile pattern{.canvas = extent_from(canvas), .tile = extent_from(tile), .windows = {}};
  for (const nb::handle window : nb::cast<nb::tuple>(windows))
    pattern.windows.push_back(extent_from(window));
  if (!text_length.is_none())
    pattern.text_length = nb::cast<std::int64_t>(text_length);
  return pattern;
}

Pattern block_list(nb::handle canvas, nb::handle tile, nb::handle counts, nb::handle indices, nb::handle key_canvas,
                   nb::handle key_tile, nb::handle query_sizes, nb::handle key_sizes, bool neighbours_share,
                   bool validate_lists) {
  BlockList pattern{.canvas = extent_from(canvas), .tile = extent_from(tile)};
  pattern.counts = view_from(counts);
  pattern.indices = view_from(indices);
  pattern.key_canvas = optional_extent_from(key_canvas);
  pattern.key_tile = optional_extent_from(key_tile);
  pattern.query_sizes = optional_view_from(query_sizes);
  pattern.key_sizes = optional_view_from(key_sizes);
  pattern.neighbours_share = neighbours_share;
  pattern.validate_lists = validate_lists;
  return pattern;
}

/// A call without its tensors.
VideoSparseAttention video_sparse(nb::handle canvas, nb::handle tile, nb::handle key_canvas, std::int64_t topk,
                                  nb::handle query_sizes, nb::handle key_sizes) {
  VideoSparseAttention call{};
  call.canvas = extent_from(canvas);
  call.tile = extent_from(tile);
  call.key_canvas = optional_extent_from(key_canvas);
  call.topk = topk;
  call.query_sizes = optional_view_from(query_sizes);
  call.key_sizes = optional_view_from(key_sizes);
  return call;
}

} // namespace
} // namespace tilewright::python

NB_MODULE(_native, module) {
  using namespace tilewright;
  using namespace tilewright::python;
  nb::set_leak_warnings(false); // default runtimes live as long as the process

  // The Python class is defined in errors.py; here an Error becomes an instance of it.
  nb::register_exception_translator([](const std::exception_ptr& pointer, void*) {
    try {
      std::rethrow_exception(pointer);
    } catch (const Error& error) {
      const nb::object type = nb::module_::import_("tilewright.errors").attr("make_error");
      const nb::object made =
          type(std::string(to_string(error.code())), error.problem(), error.allowed(), error.remedy());
      PyErr_SetObject(reinterpret_cast<PyObject*>(Py_TYPE(made.ptr())), made.ptr());
    }
  });

  nb::class_<Pattern>(module, "Pattern");
  module.def("dense", [] { return Pattern(Dense{}); });
  module.def("sliding_tile", &sliding_tile, nb::arg(), nb::arg(), nb::arg(), nb::arg().none());
  module.def("block_list", &block_list, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg().none(),
             nb::arg().none(), nb::arg().none(), nb::arg(), nb::arg());
  nb::class_<VideoSparseAttention>(module, "VideoSparse");
  module.def("video_sparse", &video_sparse, nb::arg(), nb::arg(), nb::arg().none(), nb::arg(), nb::arg().none(),
             nb::arg().none());
  module.def("topk_of_tiles", &topk_of_tiles);
  module.def("topk_of_tokens", &topk_of_tokens);

  nb::class_<Engine>(module, "Engine")
      .def("prepare", &Engine::prepare, nb::call_guard<nb::gil_scoped_release>())
      .def("cache_statistics", &cache_statistics);
  module.def("make_engine", &make_engine, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg().none());
  define_calls(module);
}
