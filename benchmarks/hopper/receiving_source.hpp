// The Hopper forward kernel with its consumers replaced by receive_only.cuh.
#pragma once

#include <sstream>
#include <string>

#include "codegen/source.hpp"
#include <tilewright/error.hpp>

namespace tilewright::benchmarks {

/// receive_only: that file's text. Throws unsupported where the spec's kernel has no consumers.
inline codegen::GeneratedSource receiving_source(const Spec& spec, const std::string& receive_only) {
  codegen::GeneratedSource source = codegen::generate(spec);
  const std::string computing = "consume(arguments, shared, warpgroup - 1);";
  const std::size_t call = source.text.rfind(computing), kernel = source.text.rfind("TILEWRIGHT_KERNEL(");
  if (call == std::string::npos || kernel == std::string::npos || kernel > call)
    throw Error(ErrorCode::unsupported, "this schedule's kernel has no consumers to replace", "family=sm90",
                "measure loads with a schedule of family sm90");
  source.text.replace(call, computing.size(), "receive(arguments, shared, warpgroup - 1);");
  std::istringstream lines(receive_only);
  std::string code;
  for (std::string line; std::getline(lines, line);)
    if (line.rfind('#', 0) != 0) // all that it includes stands in the source already
      code += line + '\n';
  source.text.insert(kernel, code);
  return source;
}

} // namespace tilewright::benchmarks
