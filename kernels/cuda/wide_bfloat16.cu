#include "linear.h"
#include "wide.cuh"

namespace minifloat::cuda {

cudaError_t linear_wide_bfloat16(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_wide<kMathBFloat16>(p, bits, stream);
}

}  // namespace minifloat::cuda
