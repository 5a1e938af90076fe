// What linear_bits is told beyond LinearParams, and how it divides its dynamic shared memory. Host and device compute the same.
#pragma once

#include "wide_space.h"

namespace minifloat::cuda {

constexpr int kMostBitPlanes = 2;  // on either side: digits 0..3
constexpr int kBitRowBytes = kChunk / 8;  // of a row of x, one plane, one chunk

// x is stored [row][chunk][plane][lane % 4][half chunk], words of 32 bits. Bit 8 b + i of the word of half chunk r and lane
// 4 g + t is that of half block 8 r + i, k = 4 t + byte_of_k(b): where the weights' planes have it (half_block_bit).
struct BitsParams : LinearParams {
  // Plane b of the weights' digits from the bits of their codes: terms[b][0] ^ code0 & terms[b][1] ^ code1 & terms[b][2] ^
  // code0 & code1 & terms[b][3], each term all ones or zeros.
  uint32_t terms[kMostBitPlanes][4];
  int32_t product;    // of digits 1 and 1, in products of the integers
  int32_t per_digit;  // integers of x are x_lowest + step * digit: so much is added for every digit of the weight
  int32_t padding;    // what padded places add to the sum of a fold's weight digits
};

// The bit of a nibble that half block i of four has: two codes of two bits lie side by side in a byte.
MF_BOTH inline int half_block_bit(int weight_bits, int i) { return weight_bits == 1 ? i : (i & 1) << 1 | (i >> 1 & 1); }

// Each warp's scales, then a ring of two chunks of x: [plane][row][kBitRowBytes], so that a warp's loads meet no bank twice.
struct BitsSpace {
  ScaleSpace scales;
  int32_t raw_at, wide_at, x_at, bytes;

  MF_BOTH BitsSpace(const LinearParams& p, int x_planes) : scales(p) {
    raw_at = 0;
    wide_at = raw_at + kWideWarps * 2 * scales.raw_bytes;
    x_at = wide_at + kWideWarps * scales.wide_floats * 4;
    bytes = x_at + 2 * x_planes * kWideRows * kBitRowBytes;
  }
};

}  // namespace minifloat::cuda
