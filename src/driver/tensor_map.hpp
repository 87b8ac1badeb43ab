// Tensor maps for the copy engine of sm_90 and newer.
#pragma once

#include "driver/cuda_api.hpp"
#include "driver/executor.hpp"

namespace tilewright::cuda {

/// Encodes on the host; needs no context and touches no device. Throws driver_error with the request and its rules.
TensorMap encode(const Api& api, const TensorMapRequest& request);

} // namespace tilewright::cuda
