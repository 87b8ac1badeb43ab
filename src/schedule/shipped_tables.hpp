// The tables of cache/tuned, embedded when the library is built.
#pragma once

#include <cstddef>
#include <string_view>

namespace tilewright::schedule {

struct ShippedTable {
  std::string_view name, text; // "sm_90.json"
};

extern const ShippedTable shipped_tables[];
extern const std::size_t shipped_table_count;

} // namespace tilewright::schedule
