// tilewright cache verify: every entry is whole; and, compiled again, the same.
#include <optional>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "cache/key.hpp"
#include "cache_actions.hpp"
#include "codegen/source.hpp"
#include "compiler/nvrtc.hpp"
#include "options.hpp"
#include "progress.hpp"

namespace tilewright::tools {
namespace {

using cache::CacheEntry;
using cache::Decoding;
using cache::Store;
using cache::StoredFile;

/// What compiling an entry's spec again gives.
enum class Repeat { same, different, not_comparable };

/// "PROBLEM@sm_90a/SCHEDULE"; nothing where another version wrote it another way.
std::optional<Spec> parse_spec(std::string_view line) {
  const std::size_t at = line.find('@'), slash = line.find('/', at);
  if (at == std::string::npos || slash == std::string::npos)
    return std::nullopt;
  try {
    Spec spec;
    spec.problem = parse_problem(line.substr(0, at));
    spec.architecture = parse_architecture(line.substr(at + 1, slash - at - 1));
    spec.schedule = parse_schedule(line.substr(slash + 1));
    return spec;
  } catch (const Error&) {
    return std::nullopt;
  }
}

Repeat recompile(const CacheEntry& entry) {
  const std::optional<Spec> spec = parse_spec(entry.spec);
  if (!spec)
    return Repeat::not_comparable;
  const codegen::GeneratedSource source = codegen::generate(*spec);
  // Another version of the templates, or another compiler, makes another kernel: nothing to compare.
  if (cache::request_key(source, spec->architecture) != entry.key || compiler::identity() != entry.compiler_identity)
    return Repeat::not_comparable;
  return compiler::compile(source, spec->architecture).cubin == entry.cubin ? Repeat::same : Repeat::different;
}

class Verification {
public:
  explicit Verification(const CacheActionOptions& options) : options_(options) {}

  /// Reads without noting a use, which would upset the order of pruning.
  void look_at(const StoredFile& file) {
    const auto decoded = looking_.read(file.path);
    if (!decoded)
      return; // another process removed it
    if (decoded->state == Decoding::other_version) {
      ++other_version_;
    } else if (decoded->state == Decoding::corrupt) {
      ++corrupt_;
      print_warning(fmt::format("{}; only whole entries are used; it is set aside, and its kernel is compiled again "
                                "when it is needed",
                                decoded->problem));
      (void)options_.open(Store::Access::read_write).read(file.path); // sets it aside
    } else {
      ++good_;
      if (options_.recompile)
        compare(decoded->entry, file);
    }
  }

  [[nodiscard]] std::vector<StoredFile> files() const { return looking_.list(); }

  void print() const {
    if (options_.json)
      fmt::print("{}\n", nlohmann::json{{"good", good_},
                                        {"corrupt", corrupt_},
                                        {"other_version", other_version_},
                                        {"recompiled", recompiled_},
                                        {"not_comparable", not_comparable_},
                                        {"different", different_}}
                             .dump());
    else
      fmt::print("{} good, {} corrupt, {} of another version{}\n", good_, corrupt_, other_version_,
                 options_.recompile
                     ? fmt::format("; {} compiled again, {} of them differ, {} of another compiler or template",
                                   recompiled_, different_, not_comparable_)
                     : "");
  }

  void require_good() const {
    if (corrupt_ + different_ > 0)
      throw Error(ErrorCode::cache_corrupt, fmt::format("{} entries are corrupt, {} differ", corrupt_, different_),
                  "every entry is whole, and what its spec compiles to", "see the warnings above");
  }

private:
  void compare(const CacheEntry& entry, const StoredFile& file) {
    const Repeat repeat = recompile(entry);
    ++(repeat == Repeat::not_comparable ? not_comparable_ : recompiled_);
    if (repeat != Repeat::different)
      return;
    ++different_;
    print_warning(fmt::format("{} differs from what its spec compiles to; the same source and compiler give the same "
                              "bytes; somebody has put another kernel there: remove the file",
                              file.path.string()));
  }

  const CacheActionOptions& options_;
  Store looking_ = options_.open(Store::Access::read_only);
  std::size_t good_ = 0, corrupt_ = 0, other_version_ = 0, recompiled_ = 0, not_comparable_ = 0, different_ = 0;
};

} // namespace

void verify_cache(const CacheActionOptions& options) {
  Verification verification(options);
  const std::vector<StoredFile> files = verification.files();
  Progress progress("verifying", files.size());
  for (const StoredFile& file : files) {
    verification.look_at(file);
    progress.step();
  }
  progress.finish();
  verification.print();
  verification.require_good();
}

} // namespace tilewright::tools
