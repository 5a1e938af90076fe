// The linear kernels' launchers. Each runs on `stream` and allocates nothing.
#pragma once

#include <cuda_runtime.h>

#include "bits_space.h"

namespace minifloat::cuda {

cudaError_t linear_narrow_int8(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_narrow_int16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_narrow_float16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_narrow_bfloat16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_narrow_float16x2(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_narrow_bfloat16x3(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_wide_int8(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_wide_float16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_wide_bfloat16(const LinearParams& p, int bits, cudaStream_t stream);
// sm_90a only: elsewhere these kernels are empty.
cudaError_t linear_warpgroup_int8(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_warpgroup_int16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_warpgroup_float16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_warpgroup_bfloat16(const LinearParams& p, int bits, cudaStream_t stream);
cudaError_t linear_warpgroup_float8(const LinearParams& p, int bits, cudaStream_t stream);
// bits: of the weights' codes, 1 or 2; x_planes: of x's digits, 1 or 2.
cudaError_t linear_bits_planes(const BitsParams& p, int bits, int x_planes, cudaStream_t stream);
cudaError_t linear_lanes_float32(const LinearParams& p, int bits, cudaStream_t stream);

}  // namespace minifloat::cuda
