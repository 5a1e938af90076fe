// Wrappers for the warpgroup instructions of sm_90a: products that run beside the threads that asked for them. As in
// ptx.cuh, the shim has the same names in plain C++.
//
// The order of use: write a and sums; warpgroup_fence; warpgroup_multiply; warpgroup_commit; warpgroup_wait. Between
// the multiply and the wait neither a nor sums may be touched. b comes from shared memory as a descriptor tells; what
// cp.async wrote there must have passed fence_async_proxy in the thread that copied it, and then a barrier.
#pragma once

#include "params.h"
#include "ptx.cuh"

#ifdef MINIFLOAT_SHIM
#define MF_HAS_WGMMA 1
#include "wgmma_twin.h"
#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define MF_HAS_WGMMA 1
#endif

namespace minifloat::cuda {

// Rows of 128 bytes along K, each 8 of them 1024 aligned bytes in which piece i (of 16 bytes) of row r lies at i ^ r % 8.
constexpr int kSwizzleRow = 128, kSwizzleAtom = 8 * kSwizzleRow;

// PTX ISA, matrix descriptor: start address / 16 in bits 0-13, leading offset / 16 in 16-29 (not used by this layout, whose
// rows hold all of an instruction's K), stride / 16 between groups of 8 rows in 32-45, swizzle mode in 62-63: 1 is 128 bytes.
MF_BOTH constexpr uint64_t swizzled_rows(uint32_t shared_address) {
  return uint64_t((shared_address & 0x3ffff) >> 4) | uint64_t(1) << 16 | uint64_t(kSwizzleAtom >> 4) << 32 | uint64_t(1) << 62;
}

}  // namespace minifloat::cuda

#if defined(MF_HAS_WGMMA) && !defined(MINIFLOAT_SHIM)

namespace minifloat::cuda {

MF_DEVICE uint32_t shared_address(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }

// What this thread wrote to shared memory, wgmma may read (after a barrier).
MF_DEVICE void fence_async_proxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// A sum after the wait for it. The compiler knows nothing of registers that change behind its back: without this it could
// read one before the wait. Passing the sums through an asm that may change them would keep their products from overlapping.
MF_DEVICE float settled(const float& sum) {
  float v;
  asm volatile("mov.b32 %0, %1;" : "=f"(v) : "f"(sum) : "memory");
  return v;
}
MF_DEVICE int32_t settled(const int32_t& sum) {
  int32_t v;
  asm volatile("mov.b32 %0, %1;" : "=r"(v) : "r"(sum) : "memory");
  return v;
}

template <class Sums, int kOperands>
MF_DEVICE void warpgroup_fence(Sums&, uint32_t (&a)[kOperands][4]) {
#pragma unroll
  for (int i = 0; i < kOperands; ++i) asm volatile("" : "+r"(a[i][0]), "+r"(a[i][1]), "+r"(a[i][2]), "+r"(a[i][3])::"memory");
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
// Sums to begin with. The compiler may not put constants in the place of accumulators, or products could not overlap.
MF_DEVICE void clear_sum(float& sum) { asm volatile("mov.b32 %0, 0;" : "=f"(sum)); }
MF_DEVICE void clear_sum(int32_t& sum) { asm volatile("mov.b32 %0, 0;" : "=r"(sum)); }
MF_DEVICE void warpgroup_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int kLeft>
MF_DEVICE void warpgroup_wait() {  // all but the latest kLeft groups are complete
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kLeft) : "memory");
}

#define MF_TILE(c, i) c(d[i][0]), c(d[i][1]), c(d[i][2]), c(d[i][3])
#define MF_TILES_4(c, i) MF_TILE(c, i), MF_TILE(c, i + 1), MF_TILE(c, i + 2), MF_TILE(c, i + 3)
#define MF_TILES_8(c) MF_TILES_4(c, 0), MF_TILES_4(c, 4)
#define MF_TILES_16(c) MF_TILES_8(c), MF_TILES_4(c, 8), MF_TILES_4(c, 12)
#define MF_NAMES_32                                                                                                          \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, " \
  "%26, %27, %28, %29, %30, %31"
#define MF_NAMES_64                                                                                                           \
  MF_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, "   \
  "%53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"

// shape: "m64n128k32.s32.s8.s8"; names, values: of the sums; a0 .. a3, at, flag: the numbers that follow them; rest: the
// immediates that the kind takes (signs of a and b, b's transposition).
#define MF_WGMMA(shape, names, values, a0, a1, a2, a3, at, flag, rest)                                                 \
  asm volatile("{\n.reg .pred p;\nsetp.ne.b32 p, %" #flag ", 0;\nwgmma.mma_async.sync.aligned." shape " {" names       \
               "}, {%" #a0 ", %" #a1 ", %" #a2 ", %" #a3 "}, %" #at ", p" rest ";\n}\n"                                \
               : values                                                                                                \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)))
#define MF_INTEGER(x) "+r"(x)
#define MF_FLOAT(x) "+f"(x)

// d = a * b, plus d if accumulate, over 64 rows of a (outputs), 8 kTiles rows of b (of x) and 32 bytes of K. Warp w of the
// four has rows 16 w .. 16 w + 15; its lanes hold a as mma.sync m16n8k16 (16-bit) or m16n8k32 (8-bit) wants it, and
// d[i] as that instruction's sums of rows 8 i .. 8 i + 7 of b.
template <int kMath>
MF_DEVICE void warpgroup_multiply(int32_t (&d)[8][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  MF_WGMMA("m64n64k32.s32.s8.s8", MF_NAMES_32, MF_TILES_8(MF_INTEGER), 32, 33, 34, 35, 36, 37, "");
}
template <int kMath>
MF_DEVICE void warpgroup_multiply(int32_t (&d)[16][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  MF_WGMMA("m64n128k32.s32.s8.s8", MF_NAMES_64, MF_TILES_16(MF_INTEGER), 64, 65, 66, 67, 68, 69, "");
}
template <int kMath>
MF_DEVICE void warpgroup_multiply(float (&d)[8][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  if constexpr (kMath == kMathFloat8) {
    MF_WGMMA("m64n64k32.f32.e4m3.e4m3", MF_NAMES_32, MF_TILES_8(MF_FLOAT), 32, 33, 34, 35, 36, 37, ", 1, 1");
  } else if constexpr (kMath == kMathFloat16) {
    MF_WGMMA("m64n64k16.f32.f16.f16", MF_NAMES_32, MF_TILES_8(MF_FLOAT), 32, 33, 34, 35, 36, 37, ", 1, 1, 0");
  } else {
    MF_WGMMA("m64n64k16.f32.bf16.bf16", MF_NAMES_32, MF_TILES_8(MF_FLOAT), 32, 33, 34, 35, 36, 37, ", 1, 1, 0");
  }
}
template <int kMath>
MF_DEVICE void warpgroup_multiply(float (&d)[16][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
  if constexpr (kMath == kMathFloat8) {
    MF_WGMMA("m64n128k32.f32.e4m3.e4m3", MF_NAMES_64, MF_TILES_16(MF_FLOAT), 64, 65, 66, 67, 68, 69, ", 1, 1");
  } else if constexpr (kMath == kMathFloat16) {
    MF_WGMMA("m64n128k16.f32.f16.f16", MF_NAMES_64, MF_TILES_16(MF_FLOAT), 64, 65, 66, 67, 68, 69, ", 1, 1, 0");
  } else {
    MF_WGMMA("m64n128k16.f32.bf16.bf16", MF_NAMES_64, MF_TILES_16(MF_FLOAT), 64, 65, 66, 67, 68, 69, ", 1, 1, 0");
  }
}

#undef MF_WGMMA
#undef MF_INTEGER
#undef MF_FLOAT
#undef MF_TILE
#undef MF_TILES_4
#undef MF_TILES_8
#undef MF_TILES_16
#undef MF_NAMES_32
#undef MF_NAMES_64

}  // namespace minifloat::cuda

#endif
