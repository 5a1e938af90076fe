#include "linear.h"
#include "narrow.cuh"

namespace minifloat::cuda {

cudaError_t linear_narrow_int16(const LinearParams& p, int bits, cudaStream_t stream) {
  return launch_narrow<kMathInt16>(p, bits, stream);
}

}  // namespace minifloat::cuda
