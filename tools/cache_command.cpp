// tilewright cache: what is in it, whether it is sound, making it smaller, and taking it elsewhere.
#include <memory>

#include <CLI/CLI.hpp>

#include "cache_actions.hpp"
#include "commands.hpp"

namespace tilewright::tools {

void add_cache(CLI::App& application) {
  auto* const command = application.add_subcommand("cache", "Look after the cache");
  command->require_subcommand(1);
  const auto options = std::make_shared<CacheActionOptions>();
  const auto add = [&](const char* name, const char* description, void (*run)(const CacheActionOptions&)) {
    auto* const action = command->add_subcommand(name, description);
    action->add_option("--cache", options->folder, "The cache's folder");
    action->add_flag("--json", options->json, "JSON: one object, or one a line and entry");
    action->callback([options, run] { run(*options); });
    return action;
  };
  add("list", "Every entry", list_cache);
  add("show", "All about one entry", show_cache_entry)
      ->add_option("key", options->key, "The key or its beginning")
      ->required();
  add("stats", "How much there is, of what", print_cache_statistics);
  add("verify", "Check every entry; corrupt ones are set aside", verify_cache)
      ->add_flag("--recompile", options->recompile, "Compile each again: the same source gives the same bytes");
  auto* const exporting = add("export", "Write the entries into one file", export_cache);
  exporting->add_option("bundle", options->bundle, "The .tar.zst to write")->required();
  exporting->add_option("--arch", options->architecture, "Only what such a GPU runs: sm_90 takes sm_90a's kernels too");
  exporting->add_option("--sign", options->private_key, "Ed25519 private key, PEM");
  auto* const pushing = add("push", "Put the entries on a server that takes PUT", push_cache);
  pushing->add_option("address", options->remote, "http(s)://host/folder")->required();
  pushing->add_option("--sign", options->private_key, "Ed25519 private key, PEM");
  auto* const importing = add("import", "Publish a bundle's entries, once all of them are verified", import_cache);
  importing->add_option("bundle", options->bundle, "The .tar.zst")->required();
  importing->add_option("--public-key", options->public_key, "Refuse a bundle that is not signed with its counterpart");
  auto* const pruning = add("prune", "Remove the least recently used entries above the limits", prune_cache);
  pruning->add_option("--max-bytes", options->most_bytes, "For example 512MB")->transform(CLI::AsSizeValue(false));
  pruning->add_option("--max-entries", options->most_entries);
}

} // namespace tilewright::tools
