// Test only: the wrappers of kernels/cuda/wgmma.cuh in plain C++, with the meaning that NVIDIA's PTX ISA gives the instructions.
//
// Products really are asynchronous here: until they are waited for, the accumulators and the a operand hold poison, and
// whoever touches them is stopped; b is read when the group is committed, or as late as at the wait (shim_reverse chooses).
// b is read from a second copy of shared memory, that of the async proxy: a copied byte is there only once its thread has
// waited for it and passed the fence, and is poison from the moment that a new copy onto it starts.
#pragma once

#include "cuda_runtime.h"

namespace shim {

constexpr uint32_t kPoisonSum = 0x7fc0dead, kPoisonOperand = 0x7fc1beef;

// One thread's share of a product.
struct Product {
  uint32_t* d;      // its accumulators, four for each eight rows of b
  int tiles;
  uint32_t* a;      // its operand registers
  uint32_t rows[4][4];  // what the four lanes of this thread's rows of a hold: [lane][register]
  uint64_t b;
  bool accumulate;
  void (*add)(const Product&, const unsigned char* shared, uint32_t* sums);
};

uint32_t shared_offset(const void* at);
void fence_async_proxy();
void fence_warpgroup(const uint32_t* d, int words, const uint32_t* a, int operand_words);
void multiply_later(Product product);
void commit_products();
void wait_products(int left);

// Byte `byte` of row n of the K-major matrix that a descriptor describes, as an offset into shared memory.
inline uint32_t place_of(uint64_t descriptor, unsigned n, unsigned byte) {
  const uint32_t start = uint32_t(descriptor & 0x3fff) << 4, leading = uint32_t(descriptor >> 16 & 0x3fff) << 4;
  const uint32_t stride = uint32_t(descriptor >> 32 & 0x3fff) << 4, base_offset = uint32_t(descriptor >> 49 & 7);
  const uint32_t mode = uint32_t(descriptor >> 62);
  if (mode == 0)  // core matrices of 8 rows of 16 bytes, each 128 contiguous bytes
    return start + n / 8 * stride + n % 8 * 16 + byte / 16 * leading + byte % 16;
  // Rows of 128, 64 or 32 bytes; the bits of the 16-byte piece are XORed with as many from the address's bit 7 on.
  const uint32_t row_bytes = 256u >> mode, bits = 4 - mode;
  const uint32_t address = start + n / 8 * stride + n % 8 * row_bytes + byte;
  return address ^ ((((address >> 7) - base_offset) & ((1u << bits) - 1)) << 4);
}

// What the async proxy reads: garbage where a thread has stored something since, which only the threads' view shows.
template <class T>
T word_at(const unsigned char* async, uint32_t place) {
  T v;
  std::memcpy(&v, async + place, sizeof v);
  if (std::memcmp(shared() + place, &v, sizeof v)) std::memset(&v, 0xff, sizeof v);
  return v;
}

// PTX ISA, m64nNk32 of 8 bits and m64nNk16 of 16: register r of lane 4 g + t holds row g + 8 (r % 2) of the warp's 16, bytes
// 16 (r / 2) + 4 t .. + 3 of the 32 along K; accumulator j of tile i is row g + 8 (j / 2), row 8 i + 2 t + j % 2 of b.
template <class Sum, Sum (*kDot)(Sum, uint32_t, uint32_t)>
void add_product(const Product& p, const unsigned char* shared, uint32_t* sums) {
  const unsigned t = current.index % 4;
  for (int i = 0; i < p.tiles; ++i)
    for (unsigned column = 0; column < 2; ++column) {
      const unsigned n = 8 * i + 2 * t + column;
      uint32_t b[8];
      for (unsigned word = 0; word < 8; ++word) b[word] = word_at<uint32_t>(shared, place_of(p.b, n, 4 * word));
      for (unsigned half = 0; half < 2; ++half) {
        uint32_t& at = sums[4 * i + 2 * half + column];
        Sum sum = 0;
        if (p.accumulate) std::memcpy(&sum, &at, 4);
        for (unsigned word = 0; word < 8; ++word) sum = kDot(sum, p.rows[word % 4][2 * (word / 4) + half], b[word]);
        std::memcpy(&at, &sum, 4);
      }
    }
}

inline float float_of_e4m3(uint8_t code) {
  const int exponent = code >> 3 & 15, mantissa = code & 7;
  if ((code & 0x7f) == 0x7f) return NAN;
  const float magnitude = exponent ? std::ldexp(float(8 + mantissa), exponent - 10) : std::ldexp(float(mantissa), -9);
  return code & 0x80 ? -magnitude : magnitude;
}

// NVIDIA does not say how 8-bit floats are added. As measured on an H100 (Khattak and Mikaitis, arXiv:2512.07004; DeepSeek-V3,
// arXiv:2412.19437): all terms of an instruction are cut to 13 bits below the largest one's first, added exactly, and cut.
inline float cut(double value, int last) { return float(std::ldexp(std::trunc(std::ldexp(value, -last)), last)); }
inline void add_e4m3(const Product& p, const unsigned char* shared, uint32_t* sums) {
  constexpr int kFraction = 13;
  const unsigned t = current.index % 4;
  for (int i = 0; i < 4 * p.tiles; ++i) {
    const unsigned n = 8 * (i / 4) + 2 * t + i % 2, half = i / 2 % 2;
    float terms[33] = {};
    if (p.accumulate) std::memcpy(&terms[32], &sums[i], 4);
    for (unsigned k = 0; k < 32; ++k) {
      const float b = float_of_e4m3(word_at<uint8_t>(shared, place_of(p.b, n, k)));
      terms[k] = float_of_e4m3(uint8_t(p.rows[k % 16 / 4][2 * (k / 16) + half] >> (k % 4 * 8))) * b;
    }
    float largest = 0;
    for (float term : terms) largest = term != term ? term : std::fabs(term) > largest ? std::fabs(term) : largest;
    double sum = largest == largest ? 0 : NAN;
    if (largest > 0)
      for (float term : terms) sum += cut(term, std::ilogb(largest) - kFraction);
    const float result = sum == 0 || sum != sum ? float(sum) : cut(sum, std::ilogb(sum) - kFraction);
    std::memcpy(&sums[i], &result, 4);
  }
}

inline uint32_t dot_s8(uint32_t sum, uint32_t a, uint32_t b) {
  for (int i = 0; i < 4; ++i) sum += uint32_t(int(int8_t(a >> (8 * i))) * int(int8_t(b >> (8 * i))));
  return sum;
}
// Products of 16-bit floats are exact in float32; the order of the additions is the hardware's own, here ascending.
template <float (*kValue)(uint16_t)>
float dot_halves(float sum, uint32_t a, uint32_t b) {
  sum += kValue(uint16_t(a)) * kValue(uint16_t(b));
  return sum + kValue(uint16_t(a >> 16)) * kValue(uint16_t(b >> 16));
}

}  // namespace shim

namespace minifloat::cuda {

inline uint32_t shared_address(const void* at) { return shim::shared_offset(at); }
inline void fence_async_proxy() { shim::fence_async_proxy(); }
inline void clear_sum(float& sum) { sum = 0; }
inline void clear_sum(int32_t& sum) { sum = 0; }
template <class T>
T settled(const T& sum) {
  return sum;
}

template <class Sums, int kOperands>
void warpgroup_fence(Sums& d, uint32_t (&a)[kOperands][4]) {
  shim::fence_warpgroup(reinterpret_cast<const uint32_t*>(d), sizeof d / 4, a[0], 4 * kOperands);
}
template <int kMath, class Sum, int kTiles>
void warpgroup_multiply(Sum (&d)[kTiles][4], uint32_t (&a)[4], uint64_t b, bool accumulate) {
  shim::Product product{reinterpret_cast<uint32_t*>(d), kTiles, a, {}, b, accumulate, nullptr};
  if constexpr (kMath == kMathInt8 || kMath == kMathInt16) {
    product.add = shim::add_product<uint32_t, shim::dot_s8>;
  } else if constexpr (kMath == kMathFloat8) {
    product.add = shim::add_e4m3;
  } else if constexpr (kMath == kMathFloat16) {
    product.add = shim::add_product<float, shim::dot_halves<float_of_f16>>;
  } else {
    product.add = shim::add_product<float, shim::dot_halves<float_of_bf16>>;
  }
  shim::multiply_later(product);
}
inline void warpgroup_commit() { shim::commit_products(); }
template <int kLeft>
void warpgroup_wait() {
  shim::wait_products(kLeft);
}

}  // namespace minifloat::cuda
