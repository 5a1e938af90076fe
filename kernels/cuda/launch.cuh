// Starting a kernel: grid, threads, dynamic shared memory, stream, and one struct by value.
#pragma once

#include "ptx.cuh"

namespace minifloat::cuda {

constexpr size_t kSharedWithoutAsking = 48 << 10;

template <class Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, int threads, size_t shared_bytes, cudaStream_t stream,
                   const Params& params) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
#ifdef MINIFLOAT_SHIM
  return shim::run(grid, threads, shared_bytes, [&] { kernel(params); });
#else
  if (shared_bytes > kSharedWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel),
                                                   cudaFuncAttributeMaxDynamicSharedMemorySize, int(shared_bytes));
    if (error != cudaSuccess) return error;
  }
  kernel<<<grid, threads, shared_bytes, stream>>>(params);
  return cudaGetLastError();
#endif
}

}  // namespace minifloat::cuda
