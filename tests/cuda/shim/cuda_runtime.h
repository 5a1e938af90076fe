// Test only: enough of CUDA for the kernels to run on the CPU. A block's threads are fibers that take turns; blocks follow
// one another. What a fiber does between two barriers is not interleaved with others; fibers.cpp says how they take turns.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define MF_DEVICE inline

enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidValue = 1, cudaErrorNotSupported = 801, cudaErrorLaunchFailure = 719 };
using cudaStream_t = void*;

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

namespace shim {

struct Thread {
  unsigned index = 0, block_x = 0, block_y = 0, block_z = 0;
};
extern Thread current;
extern dim3 grid;
extern unsigned threads;

cudaError_t run(const void* kernel, dim3 grid, unsigned threads, size_t shared_bytes, const std::function<void()>& body);
cudaError_t grant_shared(const void* kernel, int bytes);
extern int shared_limit;  // what the GPU grants a block that asks
void block_barrier();
void warp_barrier();
unsigned char* shared();
uint32_t (*warp_slots())[32];  // scratch of the current warp: [8][32]

struct Index {
  unsigned Thread::*member;
  operator unsigned() const { return current.*member; }
};

}  // namespace shim

struct ThreadIndex {
  shim::Index x{&shim::Thread::index};
};
struct BlockIndex {
  shim::Index x{&shim::Thread::block_x}, y{&shim::Thread::block_y}, z{&shim::Thread::block_z};
};
inline ThreadIndex threadIdx;
inline BlockIndex blockIdx;
inline dim3& gridDim = shim::grid;
struct BlockSize {
  struct X { operator unsigned() const { return shim::threads; } } x;
};
inline BlockSize blockDim;

inline void __syncthreads() { shim::block_barrier(); }
inline void __syncwarp() { shim::warp_barrier(); }

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __uint_as_float(uint32_t u) {
  float f;
  std::memcpy(&f, &u, 4);
  return f;
}
inline uint32_t __float_as_uint(float f) {
  uint32_t u;
  std::memcpy(&u, &f, 4);
  return u;
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  static_assert(sizeof(T) == 4);
  auto* slots = shim::warp_slots();
  const unsigned lane = shim::current.index % 32;
  std::memcpy(&slots[0][lane], &value, 4);
  shim::warp_barrier();
  T other;
  std::memcpy(&other, &slots[0][lane ^ mask], 4);
  shim::warp_barrier();
  return other;
}

enum cudaDeviceAttr { cudaDevAttrMaxSharedMemoryPerBlockOptin };
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize };
inline cudaError_t cudaGetDevice(int* device) {
  *device = 0;
  return cudaSuccess;
}
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int) {
  *value = shim::shared_limit;
  return cudaSuccess;
}
inline cudaError_t cudaFuncSetAttribute(const void* kernel, cudaFuncAttribute, int value) {
  return shim::grant_shared(kernel, value);
}

inline cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t) {
  std::memset(to, value, bytes);
  return cudaSuccess;
}
inline unsigned atomicMax(unsigned* at, unsigned value) {
  const unsigned old = *at;
  if (value > old) *at = value;
  return old;
}
