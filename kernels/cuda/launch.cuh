// Starting a kernel: grid, threads, dynamic shared memory, stream, and one struct by value.
#pragma once

#include <type_traits>

#include "ptx.cuh"

namespace minifloat::cuda {

constexpr size_t kSharedWithoutAsking = 48 << 10;

// Always all that the device grants a block, not what one launch takes: threads of the host that start the same kernel with
// different sizes would lower each other's limit between asking and starting.
template <class Params>
cudaError_t allow_shared(void (*kernel)(Params)) {
  int device = 0, limit = 0;
  cudaError_t error = cudaGetDevice(&device);
  if (error == cudaSuccess) error = cudaDeviceGetAttribute(&limit, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
  if (error != cudaSuccess) return error;
  return cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize, limit);
}

template <class Params>
cudaError_t launch(void (*kernel)(Params), dim3 grid, int threads, size_t shared_bytes, cudaStream_t stream,
                   const Params& params) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0) return cudaSuccess;
  if (shared_bytes > kSharedWithoutAsking) {
    const cudaError_t error = allow_shared(kernel);
    if (error != cudaSuccess) return error;
  }
#ifdef MINIFLOAT_SHIM
  return shim::run(reinterpret_cast<const void*>(kernel), grid, threads, shared_bytes, [&] { kernel(params); });
#else
  kernel<<<grid, threads, shared_bytes, stream>>>(params);
  return cudaGetLastError();
#endif
}

// start(the width of the weights' codes as a constant)
template <class Start>
cudaError_t for_bits(int bits, Start start) {
  switch (bits) {
    case 1: return start(std::integral_constant<int, 1>());
    case 2: return start(std::integral_constant<int, 2>());
    case 3: return start(std::integral_constant<int, 3>());
    case 4: return start(std::integral_constant<int, 4>());
    case 5: return start(std::integral_constant<int, 5>());
    case 6: return start(std::integral_constant<int, 6>());
    case 7: return start(std::integral_constant<int, 7>());
    default: return start(std::integral_constant<int, 8>());
  }
}

}  // namespace minifloat::cuda
