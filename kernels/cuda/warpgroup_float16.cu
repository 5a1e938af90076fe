#include "linear.h"
#include "warpgroup.cuh"

namespace minifloat::cuda {

cudaError_t linear_warpgroup_float16(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_warpgroup<kMathFloat16>(p, bits, stream);
}

}  // namespace minifloat::cuda
