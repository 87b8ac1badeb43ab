// The request key: everything that the compiled bytes depend on, except the compiler.
#pragma once

#include "codegen/source.hpp"
#include "support/hash.hpp"
#include <tilewright/types.hpp>

namespace tilewright::cache {

/// XXH3-128 over tagged fields: schema version, source (which holds every header it includes), compile options in their
/// order, the exact architecture with its suffix, the fixed program name. Never paths, times, hosts, drivers or GPU
/// names: two processes, two users and two hosts have the same key.
support::Hash128 request_key(const codegen::GeneratedSource& source, const Architecture& architecture);

} // namespace tilewright::cache
