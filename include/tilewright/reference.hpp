// The same maths in plain C++ and float64, on the CPU. What every test compares with; also a device of its own.
#pragma once

#include <vector>

#include <tilewright/pattern.hpp>
#include <tilewright/runtime.hpp>

namespace tilewright::reference {

/// Dense row-major float64 results, always complete.
struct Result {
  std::vector<double> out; // [batch, heads, query tokens, head_dim], token order of the call's layout
  std::vector<double> lse; // [batch, heads, query tokens]
};

/// Host memory in, float64 out: inputs are read in their own type and converted. Rows without keys and padding rows
/// give 0 and -inf. Independent of the kernels: it asks pair by pair whether a query attends to a key
/// (reference/relation.hpp) and shares no iteration code with them. threads = 0: all cores.
Result attention_forward(const AttentionForward& call, const Pattern& pattern, int threads = 0);

/// The same, rounded to the call's types and written to call.out and call.lse.
void attention_forward_into(const AttentionForward& call, const Pattern& pattern, int threads = 0);

/// Query-key pairs that the pattern keeps, over all heads and batches. Reads block lists, but not q, k and v, whose
/// pointers may be null.
double valid_pairs(const AttentionForward& call, const Pattern& pattern);

/// 4 * head_dim * valid_pairs: the FLOPs of a forward pass, as benchmarks count them.
double forward_flops(const AttentionForward& call, const Pattern& pattern);

} // namespace tilewright::reference
