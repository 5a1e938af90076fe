// From the planes of a chunk to operands of mma.sync: the two quads (outputs g and g + 8) of a half block at a time.
#pragma once

#include "params.h"
#include "ptx.cuh"

namespace minifloat::cuda {

constexpr uint32_t kNibbles = 0x0f0f0f0fu;

// One chunk of one lane: kBits loads of 16 bytes.
template <int kBits>
struct Codes {
  uint32_t words[4 * kBits];

  MF_DEVICE void load(const uint8_t* chunk, int lane) {
#pragma unroll
    for (int i = 0; i < kBits; ++i) {
      const uint4 v = load_streaming(chunk + i * 512 + lane * 16);
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
  }

  // By way of kBits * 512 bytes of shared memory; a lane takes what it has copied, so it waits for no other one.
  static MF_DEVICE void copy(unsigned char* to, const uint8_t* chunk, int lane) {
#pragma unroll
    for (int i = 0; i < kBits; ++i) copy_async(to + i * 512 + lane * 16, chunk + i * 512 + lane * 16, true);
  }
  MF_DEVICE void take(const unsigned char* copied, int lane) {
#pragma unroll
    for (int i = 0; i < kBits; ++i) {
      const uint4 v = *reinterpret_cast<const uint4*>(copied + i * 512 + lane * 16);
      words[4 * i] = v.x, words[4 * i + 1] = v.y, words[4 * i + 2] = v.z, words[4 * i + 3] = v.w;
    }
  }

  // Makes block 1 block 0, and so on: a loop over blocks that is not unrolled always decodes block 0.
  MF_DEVICE void next_block(int block) {
    if constexpr (kBits == 8) shift_words<0, 32, 4>();
    if constexpr (kBits < 8 && (kBits & 4)) shift_words<0, 16, 2>();
    if constexpr (kBits < 8 && (kBits & 2)) shift_words<kBits & 4, 8, 1>();
    if constexpr (kBits < 8 && (kBits & 1)) {  // a word holds two blocks
      constexpr int kPlane = kBits & 6;
      if (block % 2) {
        shift_words<kPlane, 4, 1>();
      } else {
        words[4 * kPlane] >>= 2;
      }
    }
  }

  // Up to four bits of each code: low nibbles of the bytes belong to output g, high ones to g + 8.
  // kFirst: the plane that holds the lowest of these bits, counted in code bits.
  template <int kFirst>
  MF_DEVICE uint32_t nibbles(int half) const {
    constexpr int kTaken = kBits - kFirst;
    constexpr bool k2 = kTaken & 2, k1 = kTaken & 1;
    if constexpr (kFirst == 0 && (kBits & 4)) return words[half];
    uint32_t out = 0;
    if constexpr (k2) out = (words[4 * kFirst + half / 2] >> (half % 2 * 2)) & 0x33333333u;
    if constexpr (k1) {
      const uint32_t plane = words[4 * (kFirst + (k2 ? 2 : 0)) + half / 4] >> (half % 4);
      out = k2 ? and_or(plane << 2, 0x44444444u, out) : plane & 0x11111111u;
    }
    return out;
  }

  template <int kFirst, int kWords, int kStep>
  MF_DEVICE void shift_words() {
#pragma unroll
    for (int i = 0; i + kStep < kWords; ++i) words[4 * kFirst + i] = words[4 * kFirst + i + kStep];
  }

  // Codes of up to 8 bits as bytes, k's 0, 2, 1, 3.
  MF_DEVICE void bytes(int half, uint32_t& lower, uint32_t& upper) const {
    if constexpr (kBits == 8) {
      lower = words[2 * half], upper = words[2 * half + 1];
    } else {
      const uint32_t low = nibbles<0>(half);
      lower = low & kNibbles, upper = (low >> 4) & kNibbles;
      if constexpr (kBits > 4) {
        const uint32_t high = nibbles<4>(half);
        lower = and_or(high << 4, ~kNibbles, lower), upper = and_or(high, ~kNibbles, upper);
      }
    }
  }
};

// A table in shared memory with a copy for each lane, so that no two lanes of a warp meet in a bank.
MF_DEVICE uint32_t look_up(const uint32_t* table, uint32_t bytes, int byte, int lane) {
  return table[(bytes >> (8 * byte) & 0xff) * 32 + lane];
}
MF_DEVICE void fill_table(uint32_t* table, const Decoder& d, int entries) {
  for (int i = threadIdx.x; i < entries * 32; i += blockDim.x) table[i] = d.table[i / 32];
}

// Sums of 16-bit numbers. Two of float16: the nearest, and what is left times 2**11, rounded; three of bfloat16: the first 8
// bits, the next 8 and the rest, exactly. Terms 0 and 1 are the halves of a word, term 2 lies in a table of its own.
constexpr float kSecondTerm = 2048;
template <int kTerms>
MF_DEVICE void fill_terms(uint32_t* table, const Decoder& d, int entries) {
  for (int i = threadIdx.x; i < entries * 32; i += blockDim.x) {
    const float value = float_of(d.table[i / 32]);
    if constexpr (kTerms == 2) {
      const uint32_t first = f16_of_float(value);
      table[i] = first | uint32_t(f16_of_float(mul(sub(value, float_of_f16(uint16_t(first))), kSecondTerm))) << 16;
    } else {
      const uint32_t first = bits_of(value) >> 16;
      const float rest = sub(value, float_of(first << 16));
      const uint32_t second = bits_of(rest) & 0xffff0000u;
      table[i] = first | second;
      table[entries * 32 + i] = bits_of(sub(rest, float_of(second))) >> 16;
    }
  }
}

// The A operand of mma.sync m16n8k16 for a half block, for each term: as decode_floats has it.
template <int kTerms, int kBits>
MF_DEVICE void decode_terms(const uint32_t* table, const Codes<kBits>& codes, int half, int lane, uint32_t (&a)[4 * kTerms]) {
  uint32_t bytes[2];
  codes.bytes(half, bytes[0], bytes[1]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {  // bytes 0 and 2, then 1 and 3
      const uint32_t first = look_up(table, bytes[r], i, lane), second = look_up(table, bytes[r], i + 2, lane);
      a[r + 2 * i] = permute_bytes(first, second, 0x5410);
      a[4 + r + 2 * i] = permute_bytes(first, second, 0x7632);
      if constexpr (kTerms == 3) {
        const uint32_t* const rest = table + (32 << kBits);
        a[8 + r + 2 * i] = permute_bytes(look_up(rest, bytes[r], i, lane), look_up(rest, bytes[r], i + 2, lane), 0x5410);
      }
    }
  }
}

// Sixteen bytes in four registers, looked up by eight codes. prmt takes its selectors from the low 16 bits, three bits each;
// a second prmt chooses between the lower and the upper eight bytes by the fourth.
template <int kBits>
struct Lookups {
  uint32_t index[2], choice[2];  // of two bytes of codes each, and so of four codes: g, g + 8, g, g + 8

  MF_DEVICE explicit Lookups(uint32_t nibbles) {
    index[0] = kBits <= 3 ? nibbles : nibbles & 0x77777777u;
    choice[0] = kBits <= 3 ? 0 : and_or(nibbles >> 1, 0x44444444u, 0x32103210u);
    index[1] = index[0] >> 16, choice[1] = choice[0] >> 16;
  }
  MF_DEVICE uint32_t four(const uint32_t* table, int i) const {
    const uint32_t lower_eight = permute_bytes(table[0], table[1], index[i]);
    if constexpr (kBits <= 3) return lower_eight;
    return permute_bytes(lower_eight, permute_bytes(table[2], table[3], index[i]), choice[i]);
  }
};

// Signed 8-bit digits of a half block: kDigits = 2 gives value = low + 256 * high.
template <int kBits, int kDigits>
MF_DEVICE void decode_digits(const Decoder& d, const uint32_t* table, const Codes<kBits>& codes, int half, int lane,
                             uint32_t (&lower)[kDigits], uint32_t (&upper)[kDigits]) {
  if constexpr (kBits <= 4) {
    const Lookups<kBits> lookups(codes.template nibbles<0>(half));
#pragma unroll
    for (int i = 0; i < kDigits; ++i) {
      const uint32_t first = lookups.four(d.table + 4 * i, 0), second = lookups.four(d.table + 4 * i, 1);
      lower[i] = permute_bytes(first, second, 0x6420), upper[i] = permute_bytes(first, second, 0x7531);
    }
  } else {
    uint32_t bytes[2];
    codes.bytes(half, bytes[0], bytes[1]);
    if (kDigits == 1 && d.kind == kDecodeIntegers) {
      lower[0] = bytes[0] ^ d.flip, upper[0] = bytes[1] ^ d.flip;
      return;
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const uint32_t first =
          permute_bytes(look_up(table, bytes[r], 0, lane), look_up(table, bytes[r], 1, lane), 0x5140);
      const uint32_t second =
          permute_bytes(look_up(table, bytes[r], 2, lane), look_up(table, bytes[r], 3, lane), 0x5140);
      uint32_t* const to = r ? upper : lower;
      to[0] = permute_bytes(first, second, 0x5410);
      if constexpr (kDigits == 2) to[1] = permute_bytes(first, second, 0x7632);
    }
  }
}

// What is subtracted from an integer code: 1024 + zero point for float16 (in both halves), else 2**23 + zero point.
template <int kMath>
MF_DEVICE uint32_t origin_of(float zero_point) {
  if constexpr (kMath == kMathFloat16) return f16_of_float(1024.0f + zero_point) * 0x10001u;
  return bits_of(8388608.0f + zero_point);
}

constexpr uint32_t kTwoTo23 = 0x4b000000u;  // with an integer below 2**23 in its low bits: 2**23 + that integer

// Four integer codes (bytes) as 16-bit floats, pairs (0, 1) and (2, 3).
template <int kMath>
MF_DEVICE void integers_to_pairs(uint32_t bytes, uint32_t origin, uint32_t& pair0, uint32_t& pair1) {
  if constexpr (kMath == kMathFloat16) {  // 0x6400 with u in the low bits is 1024 + u
    pair0 = subtract_f16x2(permute_bytes(bytes, 0x64646464u, 0x4240), origin);
    pair1 = subtract_f16x2(permute_bytes(bytes, 0x64646464u, 0x4341), origin);
  } else {  // by way of float32: bfloat16 has no room for 256 integers beside an offset
    float v[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) v[i] = sub(float_of(permute_bytes(bytes, kTwoTo23, 0x7650 | i)), float_of(origin));
    pair0 = permute_bytes(bits_of(v[0]), bits_of(v[2]), 0x7632);
    pair1 = permute_bytes(bits_of(v[1]), bits_of(v[3]), 0x7632);
  }
}

// Sign, exponent and mantissa, at the top of both halves, to their places; then the power of two between the two biases.
template <int kMath>
MF_DEVICE uint32_t minifloats_to_pair(const Decoder& d, uint32_t at_top) {
  const uint32_t bits = and_or(at_top >> d.shift, d.magnitude_mask, at_top & d.sign_mask);
  return kMath == kMathFloat16 ? multiply_f16x2(bits, d.multiplier) : multiply_bf16x2(bits, d.multiplier);
}

// One-bit codes of an output half, each the highest bit of its byte.
template <int kBits>
MF_DEVICE uint32_t at_top_of_bytes(const Codes<kBits>& codes, int half, int upper) {
  return codes.words[half / 4] << (7 - half % 4 - 4 * upper);
}

// The A operand of mma.sync m16n8k16 for a half block: k slots 2t, 2t + 1, 2t + 8, 2t + 9 are k's 4t .. 4t + 3.
template <int kMath, int kBits>
MF_DEVICE void decode_floats(const Decoder& d, const uint32_t* table, const Codes<kBits>& codes, int half, int lane,
                             const uint32_t (&origin)[2], uint32_t (&a)[4]) {
  if constexpr (kBits == 1) {
    if (d.kind == kDecodeTwo) {  // prmt spreads the top bits of bytes 0 and 2, or 1 and 3, over the halves
#pragma unroll
      for (int i = 0; i < 4; ++i)
        a[i] = and_xor(permute_bytes(at_top_of_bytes(codes, half, i % 2), 0, i < 2 ? 0xaa88 : 0xbb99), d.table[1], d.table[0]);
      return;
    }
  }
  if (d.kind == kDecodeMinifloat) {
    uint32_t lower, upper;
    if constexpr (kBits <= 4) {  // the masks drop what the neighbouring nibble leaves behind
      lower = upper = codes.template nibbles<0>(half);
    } else {
      codes.bytes(half, lower, upper);
    }
    constexpr int kNibble = kBits <= 4 ? 4 : 0;
    a[0] = minifloats_to_pair<kMath>(d, lower << (16 - kBits));
    a[2] = minifloats_to_pair<kMath>(d, lower << (8 - kBits));
    a[1] = minifloats_to_pair<kMath>(d, upper << (16 - kBits - kNibble));
    a[3] = minifloats_to_pair<kMath>(d, upper << (8 - kBits - kNibble));
    return;
  }
  if constexpr (kBits <= 4) {
    if (d.kind != kDecodeIntegers) {
      const Lookups<kBits> lookups(permute_bytes(codes.template nibbles<0>(half), 0, 0x3120));  // k's 0 to 3
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint32_t low = lookups.four(d.table, i), high = lookups.four(d.table + 4, i);
        a[2 * i] = permute_bytes(low, high, 0x6240), a[2 * i + 1] = permute_bytes(low, high, 0x7351);
      }
      return;
    }
  }
  uint32_t bytes[2];
  codes.bytes(half, bytes[0], bytes[1]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (kBits <= 4 || d.kind == kDecodeIntegers) {
      integers_to_pairs<kMath>(bytes[r], origin[r], a[r], a[r + 2]);
    } else {
      a[r] = permute_bytes(look_up(table, bytes[r], 0, lane), look_up(table, bytes[r], 2, lane), 0x5410);
      a[r + 2] = permute_bytes(look_up(table, bytes[r], 1, lane), look_up(table, bytes[r], 3, lane), 0x5410);
    }
  }
}

// Eight float32 numbers: [output half][k].
template <int kBits>
MF_DEVICE void decode_float32(const Decoder& d, const uint32_t* table, const Codes<kBits>& codes, int half, int lane,
                              const uint32_t (&origin)[2], float (&out)[2][4]) {
  uint32_t bytes[2];
  codes.bytes(half, bytes[0], bytes[1]);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      float& to = out[r][byte_of_k(i)];
      if (kBits == 1 && d.kind == kDecodeTwo) {
        to = float_of(and_xor(permute_bytes(at_top_of_bytes(codes, half, r), 0, 0x8888 + 0x1111 * i), d.table[1], d.table[0]));
      } else if (d.kind == kDecodeIntegers) {
        to = sub(float_of(permute_bytes(bytes[r], kTwoTo23, 0x7650 | i)), float_of(origin[r]));
      } else if (d.kind == kDecodeMinifloat) {
        const uint32_t at_top = permute_bytes(bytes[r], 0, i << 12 | 0x444) << (8 - kBits);
        to = mul(float_of(and_or(at_top >> d.shift, d.magnitude_mask, at_top & d.sign_mask)), float_of(d.multiplier));
      } else {
        to = float_of(look_up(table, bytes[r], i, lane));
      }
    }
  }
}

}  // namespace minifloat::cuda
