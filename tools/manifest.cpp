#include "manifest.hpp"

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "support/files.hpp"
#include <tilewright/error.hpp>

namespace tilewright::tools {
namespace {

[[noreturn]] void refuse_manifest(const std::filesystem::path& path, const std::string& offence) {
  throw Error(ErrorCode::invalid_argument, fmt::format("the manifest {}: {}", path.string(), offence),
              "an object with two lists of texts, architectures and problems (and name and source, for people), is "
              "allowed",
              "correct the manifest");
}

std::vector<std::string> texts_of(const nlohmann::json& json, const char* member, const std::filesystem::path& path) {
  const auto found = json.find(member);
  if (found == json.end() || !found->is_array() || found->empty())
    refuse_manifest(path, fmt::format("'{}' is no list", member));
  std::vector<std::string> texts;
  for (const auto& text : *found) {
    if (!text.is_string())
      refuse_manifest(path, fmt::format("'{}' holds {}", member, text.dump()));
    texts.push_back(text);
  }
  return texts;
}

/// The library's own parsers; their errors get the path.
template <typename Parse>
auto parse_all(const std::vector<std::string>& texts, const std::filesystem::path& path, Parse parse) {
  std::vector<decltype(parse(texts.front()))> values;
  for (const std::string& text : texts) {
    try {
      values.push_back(parse(text));
    } catch (const Error& error) {
      throw Error(error.code(), fmt::format("the manifest {}: {}", path.string(), error.problem()), error.allowed(),
                  error.remedy());
    }
  }
  return values;
}

} // namespace

Manifest read_manifest(const std::filesystem::path& path) {
  constexpr bool throws = false;
  const auto json = nlohmann::json::parse(support::read_file(path), nullptr, throws);
  if (!json.is_object())
    refuse_manifest(path, "it is no JSON object");
  for (const auto& [member, value] : json.items())
    if (member != "name" && member != "source" && member != "architectures" && member != "problems")
      refuse_manifest(path, fmt::format("it has a member '{}'", member));
  return {parse_all(texts_of(json, "architectures", path), path,
                    [](const std::string& text) { return parse_architecture(text); }),
          parse_all(texts_of(json, "problems", path), path, [](const std::string& text) {
            const Problem problem = parse_problem(text);
            validate(problem);
            return problem;
          })};
}

} // namespace tilewright::tools
