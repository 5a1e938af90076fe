// Test only: each wrapper of kernels/cuda/ptx.cuh in plain C++, with the meaning that NVIDIA's PTX ISA gives the instruction.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace shim {

// Pending copies of one thread.
struct Copy {
  void* to;
  const void* from;
  bool valid;
};
void copy_later(const Copy& copy);
void commit_copies();
void wait_copies(int left);

inline void require_aligned(const void* at, size_t bytes) {
  if (reinterpret_cast<uintptr_t>(at) % bytes == 0) return;
  std::fprintf(stderr, "shim: misaligned access of %zu bytes\n", bytes);
  std::abort();
}

}  // namespace shim

namespace minifloat::cuda {

inline unsigned char* shared_memory() { return shim::shared(); }

inline uint4 load_streaming(const void* at) {
  shim::require_aligned(at, 16);
  return *static_cast<const uint4*>(at);
}
template <class T>
T load_cached(const T* at) {
  shim::require_aligned(at, sizeof(T));
  return *at;
}

inline uint32_t permute_bytes(uint32_t low, uint32_t high, uint32_t selector) {
  const uint64_t bytes = uint64_t(high) << 32 | low;
  uint32_t d = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t s = selector >> (4 * i) & 15;
    uint32_t byte = bytes >> (8 * (s & 7)) & 0xff;
    if (s & 8) byte = byte & 0x80 ? 0xff : 0;  // the sign of the byte, replicated
    d |= byte << (8 * i);
  }
  return d;
}
inline uint32_t and_or(uint32_t a, uint32_t b, uint32_t c) { return (a & b) | c; }
inline uint32_t and_xor(uint32_t a, uint32_t b, uint32_t c) { return (a & b) ^ c; }

inline float float_of_f16(uint16_t h) {
  _Float16 f;
  std::memcpy(&f, &h, 2);
  return float(f);
}
inline uint16_t f16_of_float(float f) {
  const _Float16 h = static_cast<_Float16>(f);
  uint16_t bits;
  std::memcpy(&bits, &h, 2);
  return bits;
}
inline float float_of_bf16(uint16_t h) { return __uint_as_float(uint32_t(h) << 16); }
inline uint16_t bf16_of_float(float f) {
  if (f != f) return 0x7fff;
  const uint32_t bits = __float_as_uint(f);
  return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

template <class Operation>
uint32_t by_halves(uint32_t a, uint32_t b, Operation operation) {
  return uint32_t(operation(uint16_t(a), uint16_t(b))) | uint32_t(operation(uint16_t(a >> 16), uint16_t(b >> 16))) << 16;
}
inline uint32_t multiply_f16x2(uint32_t a, uint32_t b) {
  return by_halves(a, b, [](uint16_t p, uint16_t q) { return f16_of_float(float_of_f16(p) * float_of_f16(q)); });
}
inline uint32_t subtract_f16x2(uint32_t a, uint32_t b) {
  return by_halves(a, b, [](uint16_t p, uint16_t q) { return f16_of_float(float_of_f16(p) - float_of_f16(q)); });
}
inline uint32_t multiply_bf16x2(uint32_t a, uint32_t b) {
  return by_halves(a, b, [](uint16_t p, uint16_t q) { return bf16_of_float(float_of_bf16(p) * float_of_bf16(q)); });
}

// All lanes hand in their operands, then each computes its own four results.
template <int kA, int kB, class T, class Product>
void mma(T (&d)[4], const uint32_t* a, const uint32_t* b, Product product) {
  auto* slots = shim::warp_slots();
  const unsigned lane = shim::current.index % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < kA; ++i) slots[i][lane] = a[i];
  for (int i = 0; i < kB; ++i) slots[kA + i][lane] = b[i];
  shim::warp_barrier();
  for (int i = 0; i < 4; ++i) {
    const unsigned row = g + 8 * (i / 2), column = 2 * t + i % 2;
    d[i] = product(d[i], slots, row, column);
  }
  shim::warp_barrier();
}

// PTX ISA, m16n8k16 and m16n8k32 of .s8: byte j of register r of lane 4 g + t is A[g + 8 (r % 2)][16 (r / 2) + 4 t + j] and
// B[16 r + 4 t + j][g].
template <int kHalves>
int32_t s8_product(int32_t sum, uint32_t (*slots)[32], unsigned row, unsigned column) {
  uint32_t total = sum;  // wraps
  for (unsigned k = 0; k < 16 * kHalves; ++k) {
    const unsigned t = k % 16 / 4, j = k % 4, half = k / 16;
    const int a = int8_t(slots[2 * half + row / 8][row % 8 * 4 + t] >> (8 * j));
    const int b = int8_t(slots[2 * kHalves + half][column * 4 + t] >> (8 * j));
    total += uint32_t(a * b);
  }
  return int32_t(total);
}
inline void mma_s8_k16(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  const uint32_t a[] = {a0, a1}, b[] = {b0};
  mma<2, 1>(d, a, b, s8_product<1>);
}
inline void mma_s8_k32(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  const uint32_t a[] = {a0, a1, a2, a3}, b[] = {b0, b1};
  mma<4, 2>(d, a, b, s8_product<2>);
}

// m16n8k128 and m16n8k256 of .b1, and.popc: bit i of register r of lane 4 g + t is A[g + 8 (r % 2)][128 (r / 2) + 32 t + i] and
// B[128 r + 32 t + i][g]; a product of two bits is their conjunction, and a sum counts ones.
template <int kHalves>
int32_t b1_product(int32_t sum, uint32_t (*slots)[32], unsigned row, unsigned column) {
  uint32_t total = sum;  // wraps
  for (unsigned half = 0; half < kHalves; ++half)
    for (unsigned t = 0; t < 4; ++t)
      total += __builtin_popcount(slots[2 * half + row / 8][row % 8 * 4 + t] & slots[2 * kHalves + half][column * 4 + t]);
  return int32_t(total);
}
inline void mma_b1_k128(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
  const uint32_t a[] = {a0, a1}, b[] = {b0};
  mma<2, 1>(d, a, b, b1_product<1>);
}
inline void mma_b1_k256(int32_t (&d)[4], uint32_t a0, uint32_t a1, uint32_t a2, uint32_t a3, uint32_t b0, uint32_t b1) {
  const uint32_t a[] = {a0, a1, a2, a3}, b[] = {b0, b1};
  mma<4, 2>(d, a, b, b1_product<2>);
}

// m16n8k16 of 16-bit floats: half j of register r of lane 4 g + t is A[g + 8 (r % 2)][8 (r / 2) + 2 t + j] and
// B[8 r + 2 t + j][g]. Products are exact in float32; the order of the additions is the hardware's own, here ascending.
template <float (*kValue)(uint16_t)>
float half_product(float sum, uint32_t (*slots)[32], unsigned row, unsigned column) {
  for (unsigned k = 0; k < 16; ++k) {
    const unsigned t = k % 8 / 2, j = k % 2, upper = k / 8;
    const float a = kValue(uint16_t(slots[2 * upper + row / 8][row % 8 * 4 + t] >> (16 * j)));
    const float b = kValue(uint16_t(slots[4 + upper][column * 4 + t] >> (16 * j)));
    sum = sum + a * b;
  }
  return sum;
}
inline void mma_f16_k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[] = {b0, b1};
  mma<4, 2>(d, a, b, half_product<float_of_f16>);
}
inline void mma_bf16_k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  const uint32_t b[] = {b0, b1};
  mma<4, 2>(d, a, b, half_product<float_of_bf16>);
}

inline void copy_async(void* shared, const void* global, bool valid) {
  shim::require_aligned(shared, 16);
  if (valid) shim::require_aligned(global, 16);
  shim::copy_later({shared, global, valid});
}
inline void copy_async_commit() { shim::commit_copies(); }
template <int kLeft>
void copy_async_wait() {
  shim::wait_copies(kLeft);
}

}  // namespace minifloat::cuda
