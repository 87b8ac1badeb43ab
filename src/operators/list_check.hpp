// Block lists, looked at on the host: for debugging.
#pragma once

#include "driver/executor.hpp"
#include "operators/call_shape.hpp"

namespace tilewright::operators {

/// Copies counts and indices back, which synchronises the stream. Throws invalid_argument, naming batch, head, query
/// tile and entry, where a count exceeds the list's capacity, or an index is out of range or not ascending.
void check_lists(Executor& executor, const BlockList& pattern, const CallShape& shape, Stream stream);

} // namespace tilewright::operators
