#include "linear.h"
#include "warpgroup.cuh"

namespace minifloat::cuda {

cudaError_t linear_warpgroup_int8(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_warpgroup<kMathInt8>(p, bits, stream);
}

}  // namespace minifloat::cuda
