// tilewright._native: patterns, runtimes and the forward operator for python/tilewright. Its signatures are in
// _native.pyi.
#include <memory>
#include <string>
#include <utility>

#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/unique_ptr.h>

#include "views.hpp"
#include <tilewright/emulator.hpp>
#include <tilewright/error.hpp>
#include <tilewright/reference.hpp>
#include <tilewright/runtime.hpp>

namespace nb = nanobind;

namespace tilewright::python {
namespace {

/// A runtime of the library, or the reference, which is a function only.
class Engine {
public:
  explicit Engine(std::unique_ptr<Runtime> runtime) : runtime_(std::move(runtime)) {}

  void attention_forward(const AttentionForward& call, const Pattern& pattern, Stream stream) {
    if (runtime_) {
      runtime_->attention_forward(call, pattern, stream);
    } else {
      (void)Runtime::problem_of(call,
                                pattern); // the reference takes more than kernels do; a laptop shall see their errors
      reference::attention_forward_into(call, pattern);
    }
  }

  void prepare(const std::string& problem) {
    const Problem parsed = parse_problem(problem);
    if (runtime_)
      runtime_->prepare(parsed);
    else
      validate(parsed);
  }

private:
  std::unique_ptr<Runtime> runtime_; // none: the reference
};

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

/// kind: cuda, emulator or reference; ordinal: of the CUDA device, -1 for the current one.
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
    return std::make_unique<Engine>(nullptr);
  throw Error(ErrorCode::invalid_argument, "device is " + kind, "cuda, cuda:N, emulator or reference",
              "choose one of them");
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
                   nb::handle key_tile, nb::handle query_sizes, nb::handle key_sizes, bool validate_lists) {
  BlockList pattern{.canvas = extent_from(canvas), .tile = extent_from(tile)};
  pattern.counts = view_from(counts);
  pattern.indices = view_from(indices);
  if (!key_canvas.is_none())
    pattern.key_canvas = extent_from(key_canvas);
  if (!key_tile.is_none())
    pattern.key_tile = extent_from(key_tile);
  pattern.query_sizes = optional_view_from(query_sizes);
  pattern.key_sizes = optional_view_from(key_sizes);
  pattern.validate_lists = validate_lists;
  return pattern;
}

AttentionForward call_from(nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse, bool tiled,
                           nb::handle scale) {
  AttentionForward call{.q = view_from(q), .k = view_from(k), .v = view_from(v), .out = view_from(out)};
  call.lse = optional_view_from(lse);
  call.layout = tiled ? Layout::tiled : Layout::raster;
  if (!scale.is_none())
    call.scale = nb::cast<float>(scale);
  return call;
}

void attention_forward(Engine& engine, nb::handle q, nb::handle k, nb::handle v, nb::handle out, nb::handle lse,
                       const Pattern& pattern, bool tiled, nb::handle scale, std::uintptr_t stream) {
  const AttentionForward call = call_from(q, k, v, out, lse, tiled, scale);
  const nb::gil_scoped_release unlocked; // the reference and a first compile take long
  engine.attention_forward(call, pattern, reinterpret_cast<Stream>(stream));
}

std::string problem_of(nb::handle q, nb::handle k, nb::handle v, nb::handle out, const Pattern& pattern, bool tiled) {
  return to_string(Runtime::problem_of(call_from(q, k, v, out, nb::none(), tiled, nb::none()), pattern));
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
             nb::arg().none(), nb::arg().none(), nb::arg());

  nb::class_<Engine>(module, "Engine").def("prepare", &Engine::prepare, nb::call_guard<nb::gil_scoped_release>());
  module.def("make_engine", &make_engine, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg(), nb::arg(), nb::arg().none());
  module.def("attention_forward", &attention_forward, nb::arg(), nb::arg(), nb::arg(), nb::arg(), nb::arg(),
             nb::arg().none(), nb::arg(), nb::arg(), nb::arg().none(), nb::arg());
  module.def("problem_of", &problem_of);
}
