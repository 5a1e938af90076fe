#include "linear.h"
#include "wide.cuh"

namespace minifloat::cuda {

cudaError_t linear_wide_int8(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_wide<kMathInt8>(p, bits, stream);
}

}  // namespace minifloat::cuda
