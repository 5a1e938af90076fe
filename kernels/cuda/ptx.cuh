// One wrapper for each instruction that the kernels ask for by name, and nothing else.
// With MINIFLOAT_SHIM the same names come from tests/cuda/shim, as plain C++ with the documented meaning.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#ifdef MINIFLOAT_SHIM
#include "ptx_twin.h"
#else

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#error "the kernels need sm_80: mma.sync of 8-bit and bfloat16 operands, cp.async"
#endif

namespace minifloat::cuda {

#define MF_DEVICE __device__ __forceinline__

MF_DEVICE unsigned char* shared_memory() {
  extern __shared__ __align__(1024) unsigned char bytes[];  // wgmma counts its swizzle from there
  return bytes;
}

// 16 bytes that are read once: they do not displace x in L1.
MF_DEVICE uint4 load_streaming(const void* at) {
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(at));
  return v;
}

template <class T>
MF_DEVICE T load_cached(const T* at) {
  return __ldg(at);
}

MF_DEVICE uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  uint32_t d;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(d) : "r"(low), "r"(high), "r"(selector));
  return d;
}

// (a & b) | c
MF_DEVICE uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// (a & b) ^ c; left to the compiler it became two instructions where b and c are parameters.
MF_DEVICE uint32_t and_xor(uint32_t a, uint32_t b, uint32_t c) {
  uint32_t d;
  asm("lop3.b32 %0, %1, %2, %3, 0x6A;" : "=r"(d) : "r"(a), "r"(b), "r"(c));
  return d;
}

// Two float16 (bfloat16) at a time, each rounded once; the decoders only use them where the result is exact.
MF_DEVICE uint32_t multiply_f16x2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
MF_DEVICE uint32_t subtract_f16x2(uint32_t a, uint32_t b) {
  uint32_t d;
  asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(d) : "r"(a), "r"(b));
  return d;
}
MF_DEVICE uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {  // sm_80 has no mul.bf16x2: a * b + (-0)
  uint32_t d;
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(d) : "r"(a), "r"(b), "r"(0x80008000u));
  return d;
}

MF_DEVICE float float_of_f16(uint16_t h) {
  float f;
  asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
  return f;
}
MF_DEVICE uint16_t f16_of_float(float f) {
  uint16_t h;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}
MF_DEVICE uint16_t bf16_of_float(float f) {
  uint16_t h;
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f));
  return h;
}

// d += a * b over a tile of 16 rows of a, 8 columns of b and 16 or 32 k's. With g = lane / 4 and t = lane % 4:
// d[0], d[1]: row g, columns 2t, 2t + 1; d[2], d[3]: row g + 8.
MF_DEVICE void mma_s8_k16(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  asm(
      "mma.sync.aligned.m16n8k16.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(b0));
}
MF_DEVICE void mma_s8_k32(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm(
      "mma.sync.aligned.m16n8k32.row.col.s32.s8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
// Single bits: d += the number of k's at which both have a one. Word t of a row (column) is k's 32 t .. 32 t + 31, and 128 more.
MF_DEVICE void mma_b1_k128(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  asm(
      "mma.sync.aligned.m16n8k128.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(b0));
}
MF_DEVICE void mma_b1_k256(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  asm(
      "mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+r"(d[0]), "+r"(d[1]), "+r"(d[2]), "+r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
MF_DEVICE void mma_f16_k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm(
      "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
MF_DEVICE void mma_bf16_k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes from global to shared memory, past the registers and L1. Zeros instead where `valid` is false.
MF_DEVICE void copy_async(void* shared, const void* global, bool valid) {
  const uint32_t to = static_cast<uint32_t>(__cvta_generic_to_shared(shared));
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(global), "r"(valid ? 16 : 0) : "memory");
}
MF_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kLeft>
MF_DEVICE void copy_async_wait() {  // all but the latest kLeft groups of this thread have arrived
  asm volatile("cp.async.wait_group %0;" ::"n"(kLeft) : "memory");
}

}  // namespace minifloat::cuda

#endif

namespace minifloat::cuda {

// One float32 operation, rounded on its own: the compiler may not contract these into fused ones.
MF_DEVICE float mul(float a, float b) { return __fmul_rn(a, b); }
MF_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
MF_DEVICE float sub(float a, float b) { return __fadd_rn(a, -b); }
MF_DEVICE float div(float a, float b) { return __fdiv_rn(a, b); }
MF_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
MF_DEVICE uint32_t bits_of(float f) { return __float_as_uint(f); }

// x and y elements, numbered as in params.h.
MF_DEVICE float load_element(const void* base, int64_t i, int type) {
  if (type == 0) return static_cast<const float*>(base)[i];
  const uint16_t h = static_cast<const uint16_t*>(base)[i];
  return type == 1 ? float_of_f16(h) : float_of(uint32_t(h) << 16);
}
MF_DEVICE void store_element(void* base, int64_t i, int type, float value) {
  if (type == 0) {
    static_cast<float*>(base)[i] = value;
  } else {
    static_cast<uint16_t*>(base)[i] = type == 1 ? f16_of_float(value) : bf16_of_float(value);
  }
}

}  // namespace minifloat::cuda
