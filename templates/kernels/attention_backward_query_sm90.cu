// Attention backward for Hopper (sm_90a), dQ: a query block meets its key blocks. Roles as in the forward kernel
// (attention_forward_sm90.cu): a loading warpgroup, and consumers of 64 rows each.
//
// Reading order: sm90_backward/query_sides.cuh (which rows are whose), shared_memory.cuh, work.cuh, loaders.cuh,
// products.cuh, query_consumer.cuh (the main loop), kernel.cuh.
#include "kernels/sm90_backward/query_sides.cuh"

#include "kernels/sm90_backward/kernel.cuh"
#include "kernels/sm90_backward/query_consumer.cuh"

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_backward_query(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  run_backward(arguments, [&](const Shared& shared, int consumer) { consume(arguments, shared, consumer); });
}
