// One block of 32 k's, 16 outputs and 8 rows of x at a time: what mma.sync does for each kind of operand.
// A Tile keeps running sums; take() hands out the four of this lane and starts again at zero.
#pragma once

#include "decode.cuh"

namespace minifloat::cuda {

template <int kMath>
struct Traits {  // 16-bit floats
  static constexpr int kXBytes = 2, kDigits = 1;
  static constexpr bool kExact = false, kBytes = false;  // kBytes: operands are bytes, decoded as digits are
  using Sum = float;
};
template <>
struct Traits<kMathInt8> {
  static constexpr int kXBytes = 1, kDigits = 1;
  static constexpr bool kExact = true, kBytes = true;
  using Sum = uint32_t;
};
template <>
struct Traits<kMathInt16> {
  static constexpr int kXBytes = 1, kDigits = 2;
  static constexpr bool kExact = true, kBytes = true;
  using Sum = uint32_t;
};

template <>
struct Traits<kMathFloat8> {
  static constexpr int kXBytes = 1, kDigits = 1;
  static constexpr bool kExact = false, kBytes = true;
  using Sum = float;
};

// Weights as sums of several 16-bit numbers (decode.cuh).
template <int kMath>
constexpr int kTerms = kMath == kMathFloat16x2 ? 2 : kMath == kMathBFloat16x3 ? 3 : 1;

// The A operand of a block: weights of two half blocks.
template <int kMath, int kBits>
struct Weights {
  static constexpr int kDigits = Traits<kMath>::kDigits;
  uint32_t halves[2][Traits<kMath>::kBytes ? 2 * kDigits : 4 * kTerms<kMath>];  // bytes: [2 * digit + output half]

  MF_DEVICE void decode(const Decoder& d, const uint32_t* table, const Codes<kBits>& codes, int block, int lane,
                        const uint32_t (&origin)[2], int half) {
    if constexpr (Traits<kMath>::kBytes) {
      uint32_t lower[kDigits], upper[kDigits];
      decode_digits<kBits, kDigits>(d, table, codes, 2 * block + half, lane, lower, upper);
#pragma unroll
      for (int i = 0; i < kDigits; ++i) halves[half][2 * i] = lower[i], halves[half][2 * i + 1] = upper[i];
    } else if constexpr (kTerms<kMath> > 1) {
      decode_terms<kTerms<kMath>, kBits>(table, codes, 2 * block + half, lane, halves[half]);
    } else {
      decode_floats<kMath, kBits>(d, table, codes, 2 * block + half, lane, origin, halves[half]);
    }
  }
};

// The B operand of a block for one row of x per group of four lanes.
template <int kMath>
struct Columns {
  uint32_t halves[2][2];  // exact: [half][digit]; floats: [half][pair]
};

template <int kMath>
struct Tile {
  float sums[4];
  MF_DEVICE void clear() { sums[0] = sums[1] = sums[2] = sums[3] = 0; }
  template <class W>
  MF_DEVICE void half(const W& w, const Columns<kMath>& x, int h) {
    if constexpr (kMath == kMathFloat16) {
      mma_f16_k16(sums, w.halves[h], x.halves[h][0], x.halves[h][1]);
    } else {
      mma_bf16_k16(sums, w.halves[h], x.halves[h][0], x.halves[h][1]);
    }
  }
  template <class W>
  MF_DEVICE void block(const W& w, const Columns<kMath>& x) {
    half(w, x, 0);
    half(w, x, 1);
  }
  MF_DEVICE void take(float (&out)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = sums[i];
    clear();
  }
};

// A sum for each term, so that none has more additions than the float contract allows; docs/numerics.md counts them.
template <int kMath>
struct TermsTile {
  float sums[kTerms<kMath>][4];
  MF_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < kTerms<kMath> * 4; ++i) sums[i / 4][i % 4] = 0;
  }
  template <class W>
  MF_DEVICE void half(const W& w, const Columns<kMath>& x, int h) {
#pragma unroll
    for (int i = 0; i < kTerms<kMath>; ++i) {
      const uint32_t a[4] = {w.halves[h][4 * i], w.halves[h][4 * i + 1], w.halves[h][4 * i + 2], w.halves[h][4 * i + 3]};
      if constexpr (kMath == kMathFloat16x2) {
        mma_f16_k16(sums[i], a, x.halves[h][0], x.halves[h][1]);
      } else {
        mma_bf16_k16(sums[i], a, x.halves[h][0], x.halves[h][1]);
      }
    }
  }
  template <class W>
  MF_DEVICE void block(const W& w, const Columns<kMath>& x) {
    half(w, x, 0);
    half(w, x, 1);
  }
  MF_DEVICE void take(float (&out)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kMath == kMathFloat16x2) {
        out[i] = add(sums[0][i], mul(sums[1][i], 1 / kSecondTerm));
      } else {
        out[i] = add(sums[0][i], add(sums[1][i], sums[2][i]));
      }
    }
    clear();
  }
};
template <>
struct Tile<kMathFloat16x2> : TermsTile<kMathFloat16x2> {};
template <>
struct Tile<kMathBFloat16x3> : TermsTile<kMathBFloat16x3> {};

template <>
struct Tile<kMathInt8> {
  int32_t sums[4];
  MF_DEVICE void clear() { sums[0] = sums[1] = sums[2] = sums[3] = 0; }
  template <class W>
  MF_DEVICE void half(const W& w, const Columns<kMathInt8>& x, int h) {
    mma_s8_k16(sums, w.halves[h][0], w.halves[h][1], x.halves[h][0]);
  }
  template <class W>
  MF_DEVICE void block(const W& w, const Columns<kMathInt8>& x) {
    mma_s8_k32(sums, w.halves[0][0], w.halves[0][1], w.halves[1][0], w.halves[1][1], x.halves[0][0], x.halves[1][0]);
  }
  MF_DEVICE void take(uint32_t (&out)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = sums[i];
    clear();
  }
};

// Two digits on each side: low * low + 256 (low * high + high * low) + 65536 high * high.
template <>
struct Tile<kMathInt16> {
  int32_t low[4], middle[4], high[4];
  MF_DEVICE void clear() {
#pragma unroll
    for (int i = 0; i < 4; ++i) low[i] = middle[i] = high[i] = 0;
  }
  template <class W>
  MF_DEVICE void half(const W& w, const Columns<kMathInt16>& x, int h) {
    mma_s8_k16(low, w.halves[h][0], w.halves[h][1], x.halves[h][0]);
    mma_s8_k16(middle, w.halves[h][0], w.halves[h][1], x.halves[h][1]);
    mma_s8_k16(middle, w.halves[h][2], w.halves[h][3], x.halves[h][0]);
    mma_s8_k16(high, w.halves[h][2], w.halves[h][3], x.halves[h][1]);
  }
  template <class W>
  MF_DEVICE void block(const W& w, const Columns<kMathInt16>& x) {
    const auto& a = w.halves;
    const auto& b = x.halves;
    mma_s8_k32(low, a[0][0], a[0][1], a[1][0], a[1][1], b[0][0], b[1][0]);
    mma_s8_k32(middle, a[0][0], a[0][1], a[1][0], a[1][1], b[0][1], b[1][1]);
    mma_s8_k32(middle, a[0][2], a[0][3], a[1][2], a[1][3], b[0][0], b[1][0]);
    mma_s8_k32(high, a[0][2], a[0][3], a[1][2], a[1][3], b[0][1], b[1][1]);
  }
  MF_DEVICE void take(uint32_t (&out)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) out[i] = uint32_t(low[i]) + (uint32_t(middle[i]) << 8) + (uint32_t(high[i]) << 16);
    clear();
  }
};

}  // namespace minifloat::cuda
