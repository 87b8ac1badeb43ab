#include "compiler/library.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <system_error>

#include <link.h>

#include "compiler/build_id.hpp"
#include "compiler/loader_cache.hpp"
#include "support/environment.hpp"
#include "support/text.hpp"

namespace tilewright::compiler {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view library_prefix = "libnvrtc.so";
constexpr std::array<const char*, 3> library_names = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
constexpr int oldest_major = 12;

/// The major version in libnvrtc.so.13 or in the file that libnvrtc.so links to; 0 where neither says.
int major_of(const fs::path& path) {
  std::error_code error;
  for (const fs::path& candidate : {path, fs::canonical(path, error)}) {
    const std::string name = candidate.filename().string();
    int major = 0;
    if (name.starts_with(library_prefix) && name.size() > library_prefix.size() + 1)
      std::from_chars(name.data() + library_prefix.size() + 1, name.data() + name.size(), major);
    if (major > 0)
      return major;
  }
  return 0;
}

std::vector<fs::path> subfolders(const fs::path& folder, std::string_view prefix) {
  std::vector<fs::path> found;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().starts_with(prefix))
      found.push_back(entry->path());
  std::sort(found.begin(), found.end(), std::greater<>());
  return found;
}

class Search {
public:
  std::vector<Candidate> run() && {
    if (const auto named = support::environment("TILEWRIGHT_NVRTC")) {
      named_by_user(*named);
      return std::move(candidates_);
    }
    loader_path();
    toolkits();
    wheels();
    already_loaded();
    return std::move(candidates_);
  }

private:
  void add(const char* origin, const fs::path& path) {
    const bool known = std::any_of(candidates_.begin(), candidates_.end(),
                                   [&](const Candidate& candidate) { return candidate.path == path; });
    if (!known)
      candidates_.push_back({origin, path, major_of(path), build_id_of_file(path)});
  }

  void named_by_user(const fs::path& named) {
    std::error_code error;
    if (!fs::is_directory(named, error))
      return add("$TILEWRIGHT_NVRTC", named);
    for (const char* name : library_names)
      add("$TILEWRIGHT_NVRTC", named / name);
  }

  void loader_path() {
    const std::string folders = support::environment("LD_LIBRARY_PATH").value_or("");
    for (const char* name : library_names) {
      for (const std::string_view folder : support::split(folders, ':'))
        if (!folder.empty())
          add("loader path", fs::path(folder) / name);
      for (const fs::path& path : loader_cache_lookup(name))
        add("loader path", path);
    }
  }

  void toolkits() {
    std::vector<fs::path> roots;
    for (const char* variable : {"CUDA_HOME", "CUDA_PATH", "CONDA_PREFIX"})
      if (const auto root = support::environment(variable))
        roots.emplace_back(*root);
    roots.emplace_back("/usr/local/cuda");
    for (fs::path& root : subfolders("/usr/local", "cuda-"))
      roots.push_back(std::move(root));
    for (const fs::path& root : roots)
      for (const char* folder : {"lib64", "lib"})
        for (const char* name : library_names)
          add("toolkit", root / folder / name);
  }

  void wheels() {
    std::vector<fs::path> sites;
    const auto sites_below = [&](const fs::path& library_folder, const char* packages) {
      for (const fs::path& python : subfolders(library_folder, "python3"))
        sites.push_back(python / packages);
    };
    for (const char* variable : {"VIRTUAL_ENV", "TILEWRIGHT_VENV", "CONDA_PREFIX"})
      if (const auto root = support::environment(variable))
        sites_below(fs::path(*root) / "lib", "site-packages");
    if (const auto home = support::environment("HOME"))
      sites_below(fs::path(*home) / ".local/lib", "site-packages");
    for (const char* folder : {"/usr/local/lib", "/usr/lib"}) {
      sites_below(folder, "site-packages");
      sites_below(folder, "dist-packages");
    }
    for (const fs::path& site : sites) {
      add("Python wheel", site / "nvidia/cu13/lib/libnvrtc.so.13");
      add("Python wheel", site / "nvidia/cuda_nvrtc/lib/libnvrtc.so.12");
    }
  }

  void already_loaded() {
    std::vector<std::string> names;
    ::dl_iterate_phdr(
        [](::dl_phdr_info* info, std::size_t, void* found) {
          const fs::path path(info->dlpi_name);
          if (path.is_absolute() && path.filename().string().starts_with(library_prefix))
            static_cast<std::vector<std::string>*>(found)->push_back(path.string());
          return 0;
        },
        &names);
    for (const std::string& name : names)
      add("already loaded", name);
  }

  std::vector<Candidate> candidates_;
};

} // namespace

std::vector<Candidate> nvrtc_candidates() { return Search().run(); }

std::optional<Candidate> choose_nvrtc(const std::vector<Candidate>& candidates, int newest_major) {
  const auto usable = [](const Candidate& candidate) {
    return !candidate.build_id.empty() && (candidate.major == 0 || candidate.major >= oldest_major);
  };
  const auto known_to_driver = [&](const Candidate& candidate) {
    return usable(candidate) && (newest_major == 0 || candidate.major <= newest_major);
  };
  auto chosen = std::find_if(candidates.begin(), candidates.end(), known_to_driver);
  if (chosen == candidates.end())
    chosen = std::find_if(candidates.begin(), candidates.end(), usable);
  if (chosen == candidates.end())
    return std::nullopt;
  return *chosen;
}

} // namespace tilewright::compiler
