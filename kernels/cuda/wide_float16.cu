#include "linear.h"
#include "wide.cuh"

namespace minifloat::cuda {

cudaError_t linear_wide_float16(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_wide<kMathFloat16>(p, bits, stream);
}

}  // namespace minifloat::cuda
