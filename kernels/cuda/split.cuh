// Where blocks share out K and the order of additions is free: the sums of the parts, added in their order.
#pragma once

#include "finish.cuh"
#include "launch.cuh"

namespace minifloat::cuda {

template <class Sum>
__global__ void __launch_bounds__(256) split_sums(const __grid_constant__ LinearParams p) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < p.m * p.n; i += int64_t(gridDim.x) * blockDim.x) {
    Sum sum = 0;
    for (int s = 0; s < p.splits; ++s) sum += static_cast<const Sum*>(p.partial)[s * p.m * p.n + i];
    const int64_t output = i % p.n;
    finish_whole(p, i / p.n, output, sum, OutputScale(p, output / 16, int(output % 16)));
  }
}

template <class Sum>
cudaError_t launch_split_sums(const LinearParams& p, cudaStream_t stream) {
  const int64_t blocks = ceil_div(p.m * p.n, 256);
  return launch(split_sums<Sum>, dim3(unsigned(blocks > 4096 ? 4096 : blocks)), 256, 0, stream, p);
}

}  // namespace minifloat::cuda
