#include "linear.h"
#include "narrow.cuh"

namespace minifloat::cuda {

cudaError_t linear_narrow_bfloat16x3(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_narrow<kMathBFloat16x3>(p, bits, stream);
}

}  // namespace minifloat::cuda
