#include "cache/key.hpp"

#include "compiler/nvrtc.hpp"

namespace tilewright::cache {

support::Hash128 request_key(const codegen::GeneratedSource& source, const Architecture& architecture) {
  // Raise this when the meaning of a field changes.
  constexpr const char* schema_version = "1";
  support::FieldHasher hasher;
  hasher.field("schema", schema_version)
      .field("source", source.text)
      .field("kernel", source.kernel_name)
      .field("architecture", to_string(architecture))
      .field("program", compiler::program_name);
  for (const std::string& option : compiler::compile_options(architecture))
    hasher.field("option", option);
  return hasher.digest();
}

} // namespace tilewright::cache
