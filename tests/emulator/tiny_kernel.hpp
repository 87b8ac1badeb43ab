// Kernels of a few lines for tests of the emulator: device primitives, compiled and run as generated kernels are.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>

#include "codegen/templates.hpp"
#include "emulator/emulator_executor.hpp"
#include <tilewright/error.hpp>

namespace tilewright::testing {

/// A folder of this test process, removed at its end.
inline const std::filesystem::path& kernel_folder() {
  struct Folder {
    std::filesystem::path path;
    Folder() {
      std::string name = (std::filesystem::temp_directory_path() / "tilewright-emulator-XXXXXX").string();
      if (::mkdtemp(name.data()) == nullptr)
        throw std::runtime_error("no temporary folder");
      path = name;
    }
    ~Folder() { std::filesystem::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
  };
  static const Folder folder;
  return folder.path;
}

/// Replaces #include "..." of templates by their text, as the code generator does.
inline std::string expand_includes(std::string_view text, std::set<std::string>& seen) {
  constexpr std::string_view opening = "#include \"", device = "device/";
  std::string result;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size() - 1);
    const std::string_view line = text.substr(0, end + 1);
    text.remove_prefix(end + 1);
    if (!line.starts_with(opening)) {
      if (line != "#pragma once\n")
        result += line;
      continue;
    }
    const std::string name(line.substr(opening.size(), line.rfind('"') - opening.size()));
    if (!seen.insert(name).second)
      continue;
    auto included = codegen::find_template(name.starts_with(device) ? "emulator/" + name.substr(device.size()) : name);
    if (!included)
      included = codegen::find_template(name);
    if (!included)
      throw std::runtime_error("no template " + name);
    result += expand_includes(*included, seen);
  }
  return result;
}

/// A whole source: `body` is the kernel's, and sees its Arguments as `arguments`.
struct TinyKernel {
  std::string includes;  // "device/copy.cuh device/matrix.cuh"
  std::string arguments; // members of struct Arguments
  std::string body;
  int threads = 32;

  [[nodiscard]] std::string source() const {
    std::string text;
    for (std::size_t start = 0; start < includes.size();) {
      const std::size_t end = std::min(includes.find(' ', start), includes.size());
      text += "#include \"" + includes.substr(start, end - start) + "\"\n";
      start = end + 1;
    }
    text += "#line 1 \"tiny.cu\"\nnamespace tilewright { struct Arguments {" + arguments + "}; }\n" +
            "TILEWRIGHT_KERNEL(" + std::to_string(threads) +
            ", 1) tiny(TILEWRIGHT_ARGUMENT(tilewright::Arguments, arguments)) {\nusing namespace tilewright;\n" + body +
            "\n}\n"
            "extern \"C\" void tilewright_emulated_thread(const void* arguments) {\n"
            "  tiny(*static_cast<const tilewright::Arguments*>(arguments));\n}\n";
    std::set<std::string> seen;
    return expand_includes(text, seen);
  }
};

inline EmulatorOptions test_options() {
  EmulatorOptions options;
  options.architecture = {9, 0, 'a'};
  options.folder = kernel_folder();
  options.threads = 1;
  return options;
}

/// A compiled tiny kernel, to be run with various options.
class Tiny {
public:
  explicit Tiny(const TinyKernel& kernel) : threads_(static_cast<std::uint32_t>(kernel.threads)) {
    const emulator::EmulatorExecutor executor(test_options());
    kernel_ = executor.kernel_from_source("tiny", kernel.source());
  }

  [[nodiscard]] const emulator::EmulatedKernel& kernel() const { return *kernel_; }

  struct Shape {
    std::uint32_t blocks = 1, cluster = 1, shared_bytes = 0;
  };
  template <class Arguments>
  void run(const Arguments& arguments, Shape shape, const EmulatorOptions& options = test_options()) const {
    emulator::EmulatorExecutor executor(options);
    executor.launch(*kernel_, {{shape.blocks}, {threads_}, {shape.cluster}, shape.shared_bytes}, &arguments,
                    sizeof arguments, nullptr);
  }

  /// What the run complains about; empty where it ends well.
  template <class Arguments>
  [[nodiscard]] std::string complaint(const Arguments& arguments, Shape shape,
                                      const EmulatorOptions& options = test_options()) const {
    try {
      run(arguments, shape, options);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }

  /// The first complaint under one of so many seeds.
  template <class Arguments>
  [[nodiscard]] std::string complaint_under_seeds(const Arguments& arguments, Shape shape, std::uint64_t seeds) const {
    EmulatorOptions options = test_options();
    for (options.seed = 0; options.seed < seeds; ++options.seed)
      if (std::string text = complaint(arguments, shape, options); !text.empty())
        return text;
    return "";
  }

private:
  std::uint32_t threads_;
  std::shared_ptr<const emulator::EmulatedKernel> kernel_;
};

} // namespace tilewright::testing
