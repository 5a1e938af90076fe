// Very many rows of 16-bit x on GPUs without wgmma: weights decoded to scratch memory, for a plain product by whoever calls.
#pragma once

#include <cuda_runtime.h>

#include "params.h"

namespace minifloat::cuda {

struct ProductParams : LinearParams {
  uint16_t* decoded;  // (n, k_padded): values less their zero points, exact in 16 bits, without scales
};

cudaError_t decode_float16(const ProductParams& p, int bits, cudaStream_t stream);
cudaError_t decode_bfloat16(const ProductParams& p, int bits, cudaStream_t stream);
// y from p.partial, the product of x and decoded in float32, with p.splits 1.
cudaError_t finish_float32(const LinearParams& p, cudaStream_t stream);

}  // namespace minifloat::cuda
