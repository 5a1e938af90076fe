// The vectors of AVX2: 16 outputs are a pair of 256-bit registers. Included by each instruction set that builds on AVX2, inside
// its target region.
#pragma once

#include "decode.h"

namespace minifloat {
namespace {

struct Avx2 {
  struct Bytes {
    __m256i v[2];
  };
  using Shorts = Bytes;
  using Ints = Bytes;
  struct Floats {
    __m256 v[2];
  };
  struct Doubles {
    __m256d v[4];
  };
  static constexpr bool kHasDot = false;         // see isa_avxvnni.cpp
  static constexpr bool kSelectsTables = true;  // see ByteTable::select
  static constexpr bool kLooksUpInRows = true;   // see WordTable::lookup_at
  static constexpr bool kLooksUpQuads = true;    // see QuadTable
  static constexpr int kFusedRows = 4, kSelectRows = 2, kRows = 4;
  static constexpr int kFloatRows = 6, kDoubleRows = 2;
  // Panels read side by side where few rows meet them: Zen 3 reads 26 GB/s from one place at a time and 37 from four.
  static constexpr int kStreams = 4;

  template <class Function>
  static MF_INLINE Bytes halves(Function function) {
    return {{function(0), function(1)}};
  }
  template <class Function>
  static MF_INLINE Floats float_halves(Function function) {
    return {{function(0), function(1)}};
  }

#define MF_EACH(expression) halves([&](int i) MF_ALWAYS_INLINE { return expression; })
#define MF_EACH_FLOAT(expression) float_halves([&](int i) MF_ALWAYS_INLINE { return expression; })

  static MF_INLINE Bytes load(const uint8_t* at) {
    return MF_EACH(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(at) + i));
  }
  static MF_INLINE void store(uint8_t* at, Bytes b) {
    for (int i = 0; i < 2; ++i) _mm256_storeu_si256(reinterpret_cast<__m256i*>(at) + i, b.v[i]);
  }
  static MF_INLINE Bytes zero_bytes() { return MF_EACH(((void)i, _mm256_setzero_si256())); }
  // There are no byte shifts: 16-bit shifts, then the mask drops what crossed over.
  template <int kFrom, int kTo, int kWidth>
  static MF_INLINE Bytes field(Bytes b) {
    const __m256i mask = _mm256_set1_epi8(char(((1 << kWidth) - 1) << kTo));
    constexpr int kRight = kFrom > kTo ? kFrom - kTo : 0, kLeft = kTo > kFrom ? kTo - kFrom : 0;
    return MF_EACH(_mm256_and_si256(mask, kRight   ? _mm256_srli_epi16(b.v[i], kRight)
                                          : kLeft ? _mm256_slli_epi16(b.v[i], kLeft)
                                                  : b.v[i]));
  }
  template <int kFrom>
  static MF_INLINE Bytes to_top(Bytes b) {
    if constexpr (kFrom == 7) return b;
    return MF_EACH(_mm256_slli_epi16(b.v[i], 7 - kFrom));
  }
  static MF_INLINE Bytes either(Bytes a, Bytes b) { return MF_EACH(_mm256_or_si256(a.v[i], b.v[i])); }
  static MF_INLINE Bytes splat_byte(int value) { return MF_EACH(((void)i, _mm256_set1_epi8(char(value)))); }
  static MF_INLINE Bytes add8(Bytes a, Bytes b) { return MF_EACH(_mm256_add_epi8(a.v[i], b.v[i])); }
  static MF_INLINE Bytes sub8(Bytes a, Bytes b) { return MF_EACH(_mm256_sub_epi8(a.v[i], b.v[i])); }
  // Half of signed bytes, rounded down: those plus 128 as unsigned ones, without what a 16-bit shift brings along.
  static MF_INLINE Bytes half8(Bytes a) {
    const __m256i bias = _mm256_set1_epi8(-128), low = _mm256_set1_epi8(0x7f), half = _mm256_set1_epi8(64);
    return MF_EACH(_mm256_sub_epi8(_mm256_and_si256(_mm256_srli_epi16(_mm256_xor_si256(a.v[i], bias), 1), low), half));
  }
  static MF_INLINE Bytes abs8(Bytes a) { return MF_EACH(_mm256_abs_epi8(a.v[i])); }
  static MF_INLINE Bytes sign8(Bytes a, Bytes sign) { return MF_EACH(_mm256_sign_epi8(a.v[i], sign.v[i])); }
  // By the top bit of each byte of `which`.
  static MF_INLINE Bytes select8(Bytes zero, Bytes one, Bytes which) {
    return MF_EACH(_mm256_blendv_epi8(zero.v[i], one.v[i], which.v[i]));
  }
  static MF_INLINE Bytes splat4(const int8_t* at) {
    int32_t word;
    __builtin_memcpy(&word, at, 4);
    const __m256i all = _mm256_set1_epi32(word);
    return {{all, all}};
  }
  static MF_INLINE Shorts pair_dot(Bytes w, Bytes x) { return MF_EACH(_mm256_maddubs_epi16(w.v[i], x.v[i])); }
  // GCC may turn a chain of integer additions into a tree, which keeps every term alive at once and spills the sums of a tile
  // (60 % slower at M = 64). A sum that passes through an empty instruction stays where it is.
  static MF_INLINE __m256i in_order(__m256i sum) {
    asm("" : "+x"(sum));
    return sum;
  }
  static MF_INLINE Shorts sub16(Shorts a, Shorts b) { return MF_EACH(_mm256_sub_epi16(a.v[i], b.v[i])); }
  static MF_INLINE Shorts add16(Shorts a, Shorts b) { return MF_EACH(in_order(_mm256_add_epi16(a.v[i], b.v[i]))); }
  static MF_INLINE Ints widen_add(Ints sum, Shorts s, int factor) {
    const __m256i factors = _mm256_set1_epi16(short(factor));
    return MF_EACH(in_order(_mm256_add_epi32(sum.v[i], _mm256_madd_epi16(s.v[i], factors))));
  }
  static MF_INLINE Ints splat_int(int32_t value) { return MF_EACH(((void)i, _mm256_set1_epi32(value))); }
  static MF_INLINE Ints load_ints(const uint8_t* at) { return load(at); }
  static MF_INLINE void store_ints(uint8_t* at, Ints v) { store(at, v); }
  static MF_INLINE Ints add_int(Ints a, Ints b) { return MF_EACH(in_order(_mm256_add_epi32(a.v[i], b.v[i]))); }
  static MF_INLINE Ints sub_int(Ints a, Ints b) { return MF_EACH(_mm256_sub_epi32(a.v[i], b.v[i])); }
  static MF_INLINE Ints mul_int(Ints a, Ints b) { return MF_EACH(_mm256_mullo_epi32(a.v[i], b.v[i])); }
  static MF_INLINE Ints to_int(Floats f) { return MF_EACH(_mm256_cvttps_epi32(f.v[i])); }
  static MF_INLINE Floats to_float(Ints v) { return MF_EACH_FLOAT(_mm256_cvtepi32_ps(v.v[i])); }
  static MF_INLINE Floats as_floats(Ints v) { return MF_EACH_FLOAT(_mm256_castsi256_ps(v.v[i])); }
  static MF_INLINE Ints as_ints(Floats f) { return MF_EACH(_mm256_castps_si256(f.v[i])); }
  template <int kByte>
  static MF_INLINE Ints byte_of(Bytes b) {
    const __m256i mask = _mm256_set1_epi32(0xff);
    if constexpr (kByte == 3) return MF_EACH(_mm256_srli_epi32(b.v[i], 24));
    return MF_EACH(_mm256_and_si256(mask, kByte ? _mm256_srli_epi32(b.v[i], 8 * kByte) : b.v[i]));
  }
  // Bytes 0 and 2 (or 1 and 3) of each lane, zero between them.
  template <int kOdd>
  static MF_INLINE Bytes bytes_of(Bytes b) {
    return MF_EACH(_mm256_and_si256(b.v[i], _mm256_set1_epi16(short(kOdd ? 0xff00 : 0x00ff))));
  }
  static MF_INLINE Ints pair_words(Ints even, Ints odd) {
    return MF_EACH(_mm256_blend_epi16(even.v[i], _mm256_slli_epi32(odd.v[i], 16), 0xaa));
  }
  static MF_INLINE Ints splat_pair(const int16_t* at) { return splat4(reinterpret_cast<const int8_t*>(at)); }
  static MF_INLINE Ints pair_dot16(Ints a, Ints b) { return MF_EACH(_mm256_madd_epi16(a.v[i], b.v[i])); }
  static MF_INLINE Floats splat(float value) { return MF_EACH_FLOAT(((void)i, _mm256_set1_ps(value))); }
  static MF_INLINE Floats load_floats(const float* at) { return MF_EACH_FLOAT(_mm256_loadu_ps(at + 8 * i)); }
  static MF_INLINE void store_floats(float* at, Floats f) {
    for (int i = 0; i < 2; ++i) _mm256_storeu_ps(at + 8 * i, f.v[i]);
  }
  static MF_INLINE Floats add(Floats a, Floats b) { return MF_EACH_FLOAT(_mm256_add_ps(a.v[i], b.v[i])); }
  static MF_INLINE Floats sub(Floats a, Floats b) { return MF_EACH_FLOAT(_mm256_sub_ps(a.v[i], b.v[i])); }
  static MF_INLINE Floats mul(Floats a, Floats b) { return MF_EACH_FLOAT(_mm256_mul_ps(a.v[i], b.v[i])); }
  static MF_INLINE Floats fma(Floats a, Floats b, Floats c) {
    return MF_EACH_FLOAT(_mm256_fmadd_ps(a.v[i], b.v[i], c.v[i]));
  }
  // Whether all are positive, normal and finite.
  static MF_INLINE bool all_normal(Floats f) {
    const __m256i low = _mm256_min_epi32(_mm256_castps_si256(f.v[0]), _mm256_castps_si256(f.v[1]));
    const __m256i high = _mm256_max_epi32(_mm256_castps_si256(f.v[0]), _mm256_castps_si256(f.v[1]));
    const __m256i bad = _mm256_or_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(0x00800000), low),
                                        _mm256_cmpgt_epi32(high, _mm256_set1_epi32(0x7f7fffff)));
    return _mm256_testz_si256(bad, bad);
  }
  static MF_INLINE Floats from_bfloat16(const uint16_t* at) {
    return as_floats(MF_EACH(
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at) + i)), 16)));
  }
  static MF_INLINE Floats from_power_of_two(const uint8_t* at) {  // 2**(code - 127); code 0 is subnormal
    return as_floats(MF_EACH(_mm256_max_epi32(
        _mm256_set1_epi32(0x00400000),
        _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(at + 8 * i))), 23))));
  }
  static MF_INLINE Doubles splat_double(double value) {
    const __m256d all = _mm256_set1_pd(value);
    return {{all, all, all, all}};
  }
  template <class Function>
  static MF_INLINE Doubles quarters(Function function) {
    return {{function(0), function(1), function(2), function(3)}};
  }
#define MF_EACH_DOUBLE(expression) quarters([&](int i) MF_ALWAYS_INLINE { return expression; })
  static MF_INLINE Doubles load_doubles(const double* at) { return MF_EACH_DOUBLE(_mm256_loadu_pd(at + 4 * i)); }
  static MF_INLINE void store_doubles(double* at, Doubles d) {
    for (int i = 0; i < 4; ++i) _mm256_storeu_pd(at + 4 * i, d.v[i]);
  }
  static MF_INLINE Doubles to_doubles(Floats f) {
    return MF_EACH_DOUBLE(_mm256_cvtps_pd(i % 2 ? _mm256_extractf128_ps(f.v[i / 2], 1) : _mm256_castps256_ps128(f.v[i / 2])));
  }
  static MF_INLINE Floats to_floats(Doubles d) {
    return MF_EACH_FLOAT(_mm256_set_m128(_mm256_cvtpd_ps(d.v[2 * i + 1]), _mm256_cvtpd_ps(d.v[2 * i])));
  }
  static MF_INLINE Doubles ints_to_doubles(Ints v) {
    return MF_EACH_DOUBLE(_mm256_cvtepi32_pd(i % 2 ? _mm256_extracti128_si256(v.v[i / 2], 1)
                                                   : _mm256_castsi256_si128(v.v[i / 2])));
  }
  static MF_INLINE Doubles mul_double(Doubles a, Doubles b) { return MF_EACH_DOUBLE(_mm256_mul_pd(a.v[i], b.v[i])); }
  static MF_INLINE Doubles fma_double(Doubles a, Doubles b, Doubles c) {
    return MF_EACH_DOUBLE(_mm256_fmadd_pd(a.v[i], b.v[i], c.v[i]));
  }

  // Up to 16 entries: one vpshufb (it looks up within each 128-bit lane, so the table stands in both). More: a table per
  // 16 entries, chosen by the higher bits of the code.
  template <int kBits>
  struct ByteTable {
    static constexpr int kTables = kBits <= 4 ? 1 : 1 << (kBits - 4);
    __m256i tables[kTables];
    explicit ByteTable(const uint8_t* table) {
      for (int t = 0; t < kTables; ++t)
        tables[t] = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table) + t));
    }
    template <int kBit>
    MF_INLINE __m256i among(__m256i codes, const __m256i* from) const {  // from 2**(kBit - 3) tables
      if constexpr (kBit < 4) {
        return _mm256_shuffle_epi8(*from, codes);
      } else {
        const __m256i low = among<kBit - 1>(codes, from), high = among<kBit - 1>(codes, from + (1 << (kBit - 4)));
        return _mm256_blendv_epi8(low, high, kBit == 7 ? codes : _mm256_slli_epi16(codes, 7 - kBit));
      }
    }
    // The same from the codes' low four bits and bit_at_top(4), (5) ... for the bits above, which need not be assembled.
    template <int kTop, class BitAtTop>
    MF_INLINE Bytes select_among(Bytes low, const __m256i* from, BitAtTop bit_at_top) const {
      if constexpr (kTop < 4) {
        return MF_EACH(_mm256_shuffle_epi8(*from, low.v[i]));
      } else {
        const Bytes zero = select_among<kTop - 1>(low, from, bit_at_top);
        const Bytes one = select_among<kTop - 1>(low, from + (1 << (kTop - 4)), bit_at_top);
        const Bytes bit = bit_at_top(std::integral_constant<int, kTop>());
        return MF_EACH(_mm256_blendv_epi8(zero.v[i], one.v[i], bit.v[i]));
      }
    }
    template <class BitAtTop>
    MF_INLINE Bytes select(Bytes low, BitAtTop bit_at_top) const {
      return select_among<kBits - 1>(low, tables, bit_at_top);
    }
    MF_INLINE Bytes lookup(Bytes codes) const {
      if constexpr (kBits == 8) {  // vpshufb yields 0 where the top bit is set
        Bytes out;
        for (int i = 0; i < 2; ++i) {
          const __m256i low = _mm256_and_si256(codes.v[i], _mm256_set1_epi8(0x7f));
          out.v[i] = _mm256_blendv_epi8(among<6>(low, tables), among<6>(low, tables + 8), codes.v[i]);
        }
        return out;
      } else {
        return MF_EACH((among<(kBits <= 4 ? 3 : kBits - 1)>(codes.v[i], tables)));
      }
    }
  };

  // See SignificandWindow. Codes of kBits: sign, exponent, mantissa.
  template <int kBits, Fields kFields, bool kWidens>
  struct Significands {
    __m256i hidden, widened, two_to, mantissa, exponent, first;
    __m128i exponent_at, widen;
    Significands(const SignificandWindow& t)
        : hidden(broadcast(t.hidden)),
          widened(broadcast(t.widened)),
          two_to(broadcast(t.powers)),
          mantissa(_mm256_set1_epi8(char((1 << t.mantissa_bits) - 1))),
          exponent(_mm256_set1_epi8(char(t.exponent_mask))),
          first(_mm256_set1_epi8(char(t.first))),
          exponent_at(_mm_cvtsi32_si128(t.mantissa_bits)),
          widen(_mm_cvtsi32_si128(t.widen)) {}
    static MF_INLINE __m256i broadcast(const uint8_t* table) {
      return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    }
    MF_INLINE Bytes indices(Bytes codes) const {
      const Bytes fields = MF_EACH(_mm256_and_si256(_mm256_srl_epi16(codes.v[i], exponent_at), exponent));
      if constexpr (kFields == Fields::kFew) return fields;
      const Bytes from_first = MF_EACH(_mm256_sub_epi8(fields.v[i], first));
      return kFields == Fields::kFromFirst ? from_first : MF_EACH(_mm256_min_epu8(from_first.v[i], _mm256_set1_epi8(15)));
    }
    MF_INLINE Bytes significands(Bytes codes, Bytes indices) const {
      Bytes out = MF_EACH(_mm256_or_si256(_mm256_and_si256(codes.v[i], mantissa), _mm256_shuffle_epi8(hidden, indices.v[i])));
      if constexpr (kWidens) {
        out = MF_EACH(_mm256_blendv_epi8(out.v[i], _mm256_sll_epi16(out.v[i], widen),
                                         _mm256_shuffle_epi8(widened, indices.v[i])));
      }
      const Bytes signs = to_top<kBits - 1>(codes);  // 0 for code 0 only, whose significand is 0
      return MF_EACH(_mm256_sign_epi8(out.v[i], signs.v[i]));
    }
    MF_INLINE Bytes powers(Bytes indices) const { return MF_EACH(_mm256_shuffle_epi8(two_to, indices.v[i])); }
  };

  // Up to 16 float words, by a lookup for each of their bytes: cheaper than lane permutes, but the words come with four k's of
  // two outputs in a register, so that sums are of outputs by k's.
  struct QuadSums {
    __m256 v[8];  // v[4 * i + o]: outputs 8 * i + o and 8 * i + o + 4, four k's each
  };
  struct QuadTable {
    __m256i bytes[4];
    explicit QuadTable(const int32_t* words) {
      for (int b = 0; b < 4; ++b) {
        alignas(16) uint8_t table[16];
        for (int code = 0; code < 16; ++code) table[code] = uint8_t(uint32_t(words[code]) >> (8 * b));
        bytes[b] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
      }
    }
  };
  static MF_INLINE QuadSums zero_quads() {
    QuadSums out;
    MF_UNROLL for (int i = 0; i < 8; ++i) out.v[i] = _mm256_setzero_ps();
    return out;
  }
  // sums += words of the codes * x[0 .. 3]
  static MF_INLINE void add_quad(QuadSums& sums, const QuadTable& table, Bytes codes, const float* x) {
    const __m256 all = _mm256_broadcast_ps(reinterpret_cast<const __m128*>(x));
    MF_UNROLL for (int i = 0; i < 2; ++i) {
      const __m256i b0 = _mm256_shuffle_epi8(table.bytes[0], codes.v[i]), b1 = _mm256_shuffle_epi8(table.bytes[1], codes.v[i]);
      const __m256i b2 = _mm256_shuffle_epi8(table.bytes[2], codes.v[i]), b3 = _mm256_shuffle_epi8(table.bytes[3], codes.v[i]);
      const __m256i low[2] = {_mm256_unpacklo_epi8(b0, b1), _mm256_unpackhi_epi8(b0, b1)};
      const __m256i high[2] = {_mm256_unpacklo_epi8(b2, b3), _mm256_unpackhi_epi8(b2, b3)};
      MF_UNROLL for (int o = 0; o < 4; ++o) {
        const __m256i words = o % 2 ? _mm256_unpackhi_epi16(low[o / 2], high[o / 2]) : _mm256_unpacklo_epi16(low[o / 2], high[o / 2]);
        sums.v[4 * i + o] = _mm256_fmadd_ps(_mm256_castsi256_ps(words), all, sums.v[4 * i + o]);
      }
    }
  }
  // The sums of the 16 outputs, in order.
  static MF_INLINE Floats total(const QuadSums& sums) {
    return float_halves([&](int i) MF_ALWAYS_INLINE {
      const __m256* v = sums.v + 4 * i;
      return _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
    });
  }

  // Up to 16 words: permutes within registers. More: a gather from the table, which stays in L1.
  template <int kBits>
  struct WordTable {
    const int32_t* table;
    __m256i low, high;
    explicit WordTable(const int32_t* table) : table(table) {
      low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table));
      high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table) + 1);
    }
    MF_INLINE Ints lookup(Ints codes) const {
      if constexpr (kBits <= 3) return MF_EACH(_mm256_permutevar8x32_epi32(low, codes.v[i]));
      if constexpr (kBits == 4) {
        return MF_EACH(_mm256_castps_si256(_mm256_blendv_ps(
            _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(low, codes.v[i])),
            _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(high, codes.v[i])),
            _mm256_castsi256_ps(_mm256_slli_epi32(codes.v[i], 28)))));
      }
      return MF_EACH(_mm256_i32gather_epi32(table, codes.v[i], 4));
    }
    // 4-bit codes at bits kAt .. kAt + 3 of each lane, whatever else is in it: permutes look at three bits, blends at one.
    template <int kAt>
    MF_INLINE Ints lookup_at(Bytes row) const {
      return MF_EACH(_mm256_castps_si256(_mm256_blendv_ps(
          _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(low, _mm256_srli_epi32(row.v[i], kAt))),
          _mm256_castsi256_ps(_mm256_permutevar8x32_epi32(high, _mm256_srli_epi32(row.v[i], kAt))),
          _mm256_castsi256_ps(_mm256_slli_epi32(row.v[i], 28 - kAt)))));
    }
  };
};

}  // namespace
}  // namespace minifloat
