// AVX-512 with BW, VBMI and VNNI: 16 outputs are one 512-bit register.
#include <immintrin.h>

// GCC 12 warns of its own _mm512_undefined_epi32() wherever an intrinsic that uses it is inlined.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels.h"

// Everything below, the shared loop nests included, is compiled for AVX-512 and lives in unnamed namespaces.
#define MINIFLOAT_AVX2
#pragma GCC push_options
#ifdef MINIFLOAT_EMULATED
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#include "emulated.h"
#else
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")
#endif

#include "linear.h"
#include "quantize.h"

namespace minifloat {
namespace {

struct Avx512Vnni {
  using Bytes = __m512i;
  using Ints = __m512i;
  using Floats = __m512;
  struct Doubles {
    __m512d v[2];
  };
  static constexpr bool kHasDot = true, kSelectsTables = false, kLooksUpInRows = true, kLooksUpQuads = false;
  static constexpr int kFusedRows = 4, kSelectRows = 4, kRows = 8;
  static constexpr int kFloatRows = 8, kDoubleRows = 4, kStreams = 4;

  static MF_INLINE Bytes load(const uint8_t* at) { return _mm512_loadu_si512(at); }
  static MF_INLINE void store(uint8_t* at, Bytes b) { _mm512_storeu_si512(at, b); }
  static MF_INLINE Bytes zero_bytes() { return _mm512_setzero_si512(); }
  // There are no byte shifts: 16-bit shifts, then the mask drops what crossed over.
  template <int kFrom, int kTo, int kWidth>
  static MF_INLINE Bytes field(Bytes b) {
    if constexpr (kFrom > kTo) b = _mm512_srli_epi16(b, kFrom - kTo);
    if constexpr (kTo > kFrom) b = _mm512_slli_epi16(b, kTo - kFrom);
    return _mm512_and_si512(b, _mm512_set1_epi8(char(((1 << kWidth) - 1) << kTo)));
  }
  template <int kFrom>
  static MF_INLINE Bytes to_top(Bytes b) {
    return kFrom == 7 ? b : _mm512_slli_epi16(b, 7 - kFrom);
  }
  static MF_INLINE Bytes add8(Bytes a, Bytes b) { return _mm512_add_epi8(a, b); }
  static MF_INLINE Bytes either(Bytes a, Bytes b) { return _mm512_or_si512(a, b); }
  static MF_INLINE Bytes splat_byte(int value) { return _mm512_set1_epi8(char(value)); }
  static MF_INLINE Bytes splat4(const int8_t* at) {
    int32_t word;
    __builtin_memcpy(&word, at, 4);
    return _mm512_set1_epi32(word);
  }
  static MF_INLINE Ints dot(Ints sum, Bytes w, Bytes x) { return _mm512_dpbusd_epi32(sum, w, x); }
  static MF_INLINE Ints splat_int(int32_t value) { return _mm512_set1_epi32(value); }
  static MF_INLINE Ints load_ints(const uint8_t* at) { return load(at); }
  static MF_INLINE void store_ints(uint8_t* at, Ints v) { store(at, v); }
  static MF_INLINE Ints add_int(Ints a, Ints b) { return _mm512_add_epi32(a, b); }
  static MF_INLINE Ints sub_int(Ints a, Ints b) { return _mm512_sub_epi32(a, b); }
  static MF_INLINE Ints mul_int(Ints a, Ints b) { return _mm512_mullo_epi32(a, b); }
  static MF_INLINE Ints to_int(Floats f) { return _mm512_cvttps_epi32(f); }
  static MF_INLINE Floats to_float(Ints v) { return _mm512_cvtepi32_ps(v); }
  static MF_INLINE Floats as_floats(Ints v) { return _mm512_castsi512_ps(v); }
  static MF_INLINE Ints as_ints(Floats f) { return _mm512_castps_si512(f); }
  template <int kByte>
  static MF_INLINE Ints byte_of(Bytes b) {
    if constexpr (kByte == 3) return _mm512_srli_epi32(b, 24);
    return _mm512_and_si512(_mm512_srli_epi32(b, 8 * kByte), _mm512_set1_epi32(0xff));
  }
  // Bytes 0 and 2 (or 1 and 3) of each lane, zero between them.
  template <int kOdd>
  static MF_INLINE Bytes bytes_of(Bytes b) {
    return _mm512_and_si512(b, _mm512_set1_epi16(short(kOdd ? 0xff00 : 0x00ff)));
  }
  static MF_INLINE Ints pair_dot(Bytes w, Bytes x) { return _mm512_maddubs_epi16(w, x); }
  static MF_INLINE Ints pair_words(Ints even, Ints odd) {
    return _mm512_mask_blend_epi16(0xaaaaaaaau, even, _mm512_slli_epi32(odd, 16));
  }
  static MF_INLINE Ints splat_pair(const int16_t* at) { return splat4(reinterpret_cast<const int8_t*>(at)); }
  static MF_INLINE Ints pair_dot16(Ints a, Ints b) { return _mm512_madd_epi16(a, b); }
  static MF_INLINE Floats splat(float value) { return _mm512_set1_ps(value); }
  static MF_INLINE Floats load_floats(const float* at) { return _mm512_loadu_ps(at); }
  static MF_INLINE void store_floats(float* at, Floats f) { _mm512_storeu_ps(at, f); }
  static MF_INLINE Floats add(Floats a, Floats b) { return _mm512_add_ps(a, b); }
  static MF_INLINE Floats sub(Floats a, Floats b) { return _mm512_sub_ps(a, b); }
  static MF_INLINE Floats mul(Floats a, Floats b) { return _mm512_mul_ps(a, b); }
  static MF_INLINE Floats fma(Floats a, Floats b, Floats c) { return _mm512_fmadd_ps(a, b, c); }
  // Whether all are positive, normal and finite.
  static MF_INLINE bool all_normal(Floats f) {
    const __m512i bits = as_ints(f), offset = _mm512_set1_epi32(0x00800000);
    return _mm512_cmplt_epu32_mask(_mm512_sub_epi32(bits, offset), _mm512_set1_epi32(0x7f000000)) == 0xffff;
  }
  static MF_INLINE Floats from_bfloat16(const uint16_t* at) {
    const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
    return as_floats(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  }
  static MF_INLINE Floats from_power_of_two(const uint8_t* at) {  // 2**(code - 127); code 0 is subnormal
    const __m512i codes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
    return as_floats(_mm512_max_epi32(_mm512_slli_epi32(codes, 23), _mm512_set1_epi32(0x00400000)));
  }
  static MF_INLINE Doubles splat_double(double value) { return {{_mm512_set1_pd(value), _mm512_set1_pd(value)}}; }
  static MF_INLINE Doubles load_doubles(const double* at) { return {{_mm512_loadu_pd(at), _mm512_loadu_pd(at + 8)}}; }
  static MF_INLINE void store_doubles(double* at, Doubles d) {
    _mm512_storeu_pd(at, d.v[0]);
    _mm512_storeu_pd(at + 8, d.v[1]);
  }
  static MF_INLINE Doubles to_doubles(Floats f) {
    return {{_mm512_cvtps_pd(_mm512_castps512_ps256(f)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(f, 1))}};
  }
  static MF_INLINE Floats to_floats(Doubles d) {
    return _mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps(d.v[0])), _mm512_cvtpd_ps(d.v[1]), 1);
  }
  static MF_INLINE Doubles ints_to_doubles(Ints v) {
    return {{_mm512_cvtepi32_pd(_mm512_castsi512_si256(v)), _mm512_cvtepi32_pd(_mm512_extracti32x8_epi32(v, 1))}};
  }
  static MF_INLINE Doubles mul_double(Doubles a, Doubles b) {
    return {{_mm512_mul_pd(a.v[0], b.v[0]), _mm512_mul_pd(a.v[1], b.v[1])}};
  }
  static MF_INLINE Doubles fma_double(Doubles a, Doubles b, Doubles c) {
    return {{_mm512_fmadd_pd(a.v[0], b.v[0], c.v[0]), _mm512_fmadd_pd(a.v[1], b.v[1], c.v[1])}};
  }

  // vpshufb for up to 16 entries, vpermb for 64, vpermt2b for 128, two of these for 256.
  template <int kBits>
  struct ByteTable {
    static constexpr int kRegisters = kBits <= 6 ? 1 : kBits == 7 ? 2 : 4;
    __m512i tables[kRegisters];
    explicit ByteTable(const uint8_t* table) {
      if constexpr (kBits <= 4) {
        tables[0] = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
      } else {
        for (int i = 0; i < kRegisters; ++i) tables[i] = _mm512_loadu_si512(table + 64 * i);
      }
    }
    MF_INLINE Bytes lookup(Bytes codes) const {
      if constexpr (kBits <= 4) return _mm512_shuffle_epi8(tables[0], codes);
      if constexpr (kBits <= 6) return _mm512_permutexvar_epi8(codes, tables[0]);
      const __m512i low = _mm512_permutex2var_epi8(tables[0], codes, tables[kRegisters > 1]);
      if constexpr (kBits <= 7) return low;
      const __m512i high = _mm512_permutex2var_epi8(tables[kRegisters - 2], codes, tables[kRegisters - 1]);
      return _mm512_mask_blend_epi8(_mm512_movepi8_mask(codes), low, high);
    }
  };

  // See SignificandWindow. Codes of kBits: sign, exponent, mantissa.
  template <int kBits, Fields kFields, bool kWidens>
  struct Significands {
    __m512i hidden, widened, two_to, mantissa, exponent, first;
    __m128i exponent_at, widen;
    Significands(const SignificandWindow& t)
        : hidden(broadcast(t.hidden)),
          widened(broadcast(t.widened)),
          two_to(broadcast(t.powers)),
          mantissa(_mm512_set1_epi8(char((1 << t.mantissa_bits) - 1))),
          exponent(_mm512_set1_epi8(char(t.exponent_mask))),
          first(_mm512_set1_epi8(char(t.first))),
          exponent_at(_mm_cvtsi32_si128(t.mantissa_bits)),
          widen(_mm_cvtsi32_si128(t.widen)) {}
    static MF_INLINE __m512i broadcast(const uint8_t* table) {
      return _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    }
    MF_INLINE Bytes indices(Bytes codes) const {
      const Bytes fields = _mm512_and_si512(_mm512_srl_epi16(codes, exponent_at), exponent);
      if constexpr (kFields == Fields::kFew) return fields;
      const Bytes from_first = _mm512_sub_epi8(fields, first);
      return kFields == Fields::kFromFirst ? from_first : _mm512_min_epu8(from_first, _mm512_set1_epi8(15));
    }
    MF_INLINE Bytes significands(Bytes codes, Bytes indices) const {
      Bytes out = _mm512_or_si512(_mm512_and_si512(codes, mantissa), _mm512_shuffle_epi8(hidden, indices));
      if constexpr (kWidens) {
        const __mmask64 wide = _mm512_movepi8_mask(_mm512_shuffle_epi8(widened, indices));
        out = _mm512_mask_blend_epi8(wide, out, _mm512_sll_epi16(out, widen));
      }
      const __mmask64 negative = _mm512_movepi8_mask(to_top<kBits - 1>(codes));
      return _mm512_mask_sub_epi8(out, negative, _mm512_setzero_si512(), out);
    }
    MF_INLINE Bytes powers(Bytes indices) const { return _mm512_shuffle_epi8(two_to, indices); }
  };

  // vpermd for up to 16 words, vpermt2d for 32, two of these for 64; above, a gather from the table, which stays in L1.
  template <int kBits>
  struct WordTable {
    const int32_t* table;
    __m512i words[4];
    explicit WordTable(const int32_t* table) : table(table) {
      for (int i = 0; i < 4; ++i) words[i] = _mm512_loadu_si512(table + 16 * i);
    }
    MF_INLINE Ints lookup(Ints codes) const {
      if constexpr (kBits <= 4) return _mm512_permutexvar_epi32(codes, words[0]);
      if constexpr (kBits > 6) return _mm512_i32gather_epi32(codes, table, 4);
      const __m512i low = _mm512_permutex2var_epi32(words[0], codes, words[1]);
      if constexpr (kBits == 5) return low;
      const __m512i high = _mm512_permutex2var_epi32(words[2], codes, words[3]);
      return _mm512_mask_blend_epi32(_mm512_test_epi32_mask(codes, _mm512_set1_epi32(32)), low, high);
    }
    // 4-bit codes at bits kAt .. kAt + 3 of each lane: the permute looks at no others.
    template <int kAt>
    MF_INLINE Ints lookup_at(Bytes row) const {
      return _mm512_permutexvar_epi32(_mm512_srli_epi32(row, kAt), words[0]);
    }
  };
};

}  // namespace

const Kernels kAvx512VnniKernels{"avx512vnni", {true, 8, 8, 4, 4, true}, shared_scale,       quantize_digits,             quantize_codes,
                                 dequantize,   linear<Avx512Vnni>, weights_as_float<Avx512Vnni>};

}  // namespace minifloat

#pragma GCC pop_options
