#include "linear.h"
#include "narrow.cuh"

namespace minifloat::cuda {

cudaError_t linear_narrow_float16x2(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_narrow<kMathFloat16x2>(p, bits, stream);
}

}  // namespace minifloat::cuda
