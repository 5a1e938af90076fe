// The weight layout from canonical storage and back, and as plain numbers.
#pragma once

#include <cuda_runtime.h>

#include "params.h"

namespace minifloat::cuda {

struct StorageParams {
  Layout layout;
  uint32_t code_flip;
  int32_t per_tensor;         // one scale, and zero point, for all
  int32_t has_zero_points;
  int64_t packed_row_bytes;
  uint8_t* packed;            // (n, packed_row_bytes)
  uint8_t* scales;            // (n, groups) or one, scale_bytes each
  uint8_t* zero_points;       // likewise, one byte each
  uint8_t* weight;            // layout.bytes
};

// out[row, k] = (value - zero point) * scale * tensor_scale, float32 (n, k).
struct DequantizeParams {
  Layout layout;
  const uint8_t* weight;
  ScaleCode scale;
  int32_t has_zero_points;
  float tensor_scale;
  float values[256];       // by stored code
  float zero_values[256];  // by zero point code
  float* out;
};

cudaError_t pack_weight(const StorageParams& p, cudaStream_t stream);
cudaError_t restore_weight(const StorageParams& p, cudaStream_t stream);
cudaError_t dequantize_weight(const DequantizeParams& p, cudaStream_t stream);

}  // namespace minifloat::cuda
