// A cache in one file: .tar.zst, to be carried into an image or to another machine.
#pragma once

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace tilewright::tools {

/// name ("v1/ab/...") and bytes of an entry's file.
using NamedFile = std::pair<std::string, std::string>;

/// A bundle holds manifest.json (format, and name, size and SHA-256 of every file, in the order of their names),
/// manifest.sig (the Ed25519 signature of manifest.json, 64 bytes) where it is signed, and the files. The same files
/// and key give the same bytes.
std::string make_bundle(std::vector<NamedFile> files, const std::filesystem::path& private_key);

/// The files of a bundle, each with its digest checked. public_key: where it is not empty, the bundle must be signed
/// with its private counterpart. Throws cache_corrupt where anything is amiss: nothing of such a bundle is to be used.
std::vector<NamedFile> read_bundle(const std::filesystem::path& path, const std::filesystem::path& public_key);

} // namespace tilewright::tools
