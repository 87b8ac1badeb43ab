// Attention backward for Hopper (sm_90a), dK and dV: a key block meets the query blocks that see it. Roles as in the
// forward kernel (attention_forward_sm90.cu): a loading warpgroup, and consumers of 64 rows each.
//
// Reading order: sm90_backward/key_sides.cuh (which rows are whose), shared_memory.cuh, work.cuh, loaders.cuh,
// products.cuh, key_consumer.cuh (the main loop), kernel.cuh.
#include "kernels/sm90_backward/key_sides.cuh"

#include "kernels/sm90_backward/kernel.cuh"
#include "kernels/sm90_backward/key_consumer.cuh"

TILEWRIGHT_KERNEL(tilewright::threads, tilewright::config::blocks_per_processor)
attention_backward_key(TILEWRIGHT_ARGUMENT(tilewright::KernelArguments, arguments)) {
  using namespace tilewright;
  run_backward(arguments, [&](const Shared& shared, int consumer) { consume(arguments, shared, consumer); });
}
