#include "linear.h"
#include "narrow.cuh"

namespace minifloat::cuda {

cudaError_t linear_narrow_bfloat16(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_narrow<kMathBFloat16>(p, bits, stream);
}

}  // namespace minifloat::cuda
