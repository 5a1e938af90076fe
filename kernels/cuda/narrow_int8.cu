#include "linear.h"
#include "narrow.cuh"

namespace minifloat::cuda {

cudaError_t linear_narrow_int8(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_narrow<kMathInt8>(p, bits, stream);
}

}  // namespace minifloat::cuda
