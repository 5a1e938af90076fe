// Activations made ready for the linear kernels: quantized to digits (exact contract), or spread to the layout's K (float).
#pragma once

#include <cuda_runtime.h>

#include "layout.h"

namespace minifloat::cuda {

// What rounding needs to know of an operand, its tables in the order they are searched.
struct Rounding {
  int32_t encode_kind, scale_kind, has_zero_point, is_signed, scale_exponent;
  int32_t mantissa_bits, min_exponent;
  float scale_max, lowest, highest;
  float to_grid;                // a value times this is its integer
  float largest_scale;          // kTwoLevel
  float thresholds[256];        // by rank
  int16_t grid[256];            // by rank
  float scale_thresholds[256];  // kTwoLevel
  float scale_values[256];      // kTwoLevel: by rank
};

struct QuantizeParams {
  const void* x;           // (m, k), x_type
  int32_t x_type;
  int32_t digits_per_value;  // 1, or 2: value = low + 256 * high
  int64_t m, k, k_padded, x_rows;
  int32_t fold, fold_padded, folds, slot_k, slots_per_fold;
  int32_t groups;          // per row; group_k elements each
  int32_t grouped;
  int64_t group_k;
  int8_t *low, *high;      // (m, k_padded), each four k's in the order 0, 2, 1, 3
  int32_t* sums;           // (folds, x_rows)
  float* scales;           // (groups, x_rows), or (1, x_rows)
  float* tensor_scale;     // one number, kTwoLevel only
  uint32_t* extremes;      // two numbers, where a scale covers the whole tensor
  int32_t per_tensor;      // the scale itself is one for all rows
  // linear_bits: in place of low, so many planes of bits of (digit - lowest) / step, and reciprocal is 2**16 / step, rounded up.
  // bits_space.h has their order.
  int32_t planes, weight_bits, lowest, reciprocal;
  uint32_t* bits;
  Rounding rounding;
};

struct SpreadParams {
  const void* x;   // (m, k), x_type
  int32_t x_type, out_type;
  int64_t m, k;
  Layout layout;
  void* out;       // (m, k_padded), zeros in the padding
  // For linear_warpgroup. 16-bit types: in each 16 k's the pairs come as 0, 2, 4, 6, 1, 3, 5, 7; 8-bit ones: in each 4 k's
  // the bytes as 0, 2, 1, 3.
  int32_t operand_order;
};

cudaError_t quantize_activations(const QuantizeParams& p, cudaStream_t stream);
cudaError_t spread_activations(const SpreadParams& p, cudaStream_t stream);

}  // namespace minifloat::cuda
