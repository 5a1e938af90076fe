// What each AVX-512 and AVX-VNNI instruction that the kernels use does, in plain loops. A build with MINIFLOAT_CPU=emulated
// (see setup.py) so runs the kernels of these instruction sets on a CPU that has AVX2: for tests, as it is far slower.
// Declared inside minifloat, these names hide those of <immintrin.h>.
#pragma once

#include <immintrin.h>

#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>

#ifndef __OPTIMIZE__
#error "without optimization some names of <immintrin.h> are macros, which nothing hides"
#endif

namespace minifloat {
namespace {

template <class T, class Vector>
struct Lanes {
  static constexpr int kCount = sizeof(Vector) / sizeof(T);
  T lane[kCount];
};

// The lanes of a register, as elements of T.
template <class T, class Vector>
Lanes<T, Vector> as(Vector v) {
  return std::bit_cast<Lanes<T, Vector>>(v);
}

// The register whose lanes, elements of T, are function(0), function(1) ...
template <class T, class Out = __m512i, class Function>
Out each(Function function) {
  Lanes<T, Out> out;
  for (int i = 0; i < out.kCount; ++i) out.lane[i] = T(function(i));
  return std::bit_cast<Out>(out);
}

// The same where lane i depends on lane i of each of `vectors`.
template <class T, class Function, class Vector, class... Vectors>
Vector lanewise(Function function, Vector v, Vectors... vectors) {
  const auto apply = [&](auto... lanes) { return each<T, Vector>([&](int i) { return function(lanes.lane[i]...); }); };
  return apply(as<T>(v), as<T>(vectors)...);
}

// Not inlined: some 30000 loops would take minutes to compile.
#define MF_EMULATED [[gnu::noinline, maybe_unused]]

// Memory.
template <class Vector>
Vector read(const void* at) {
  Vector v;
  std::memcpy(&v, at, sizeof(v));
  return v;
}
MF_EMULATED __m512i _mm512_loadu_si512(const void* at) { return read<__m512i>(at); }
MF_EMULATED __m512 _mm512_loadu_ps(const void* at) { return read<__m512>(at); }
MF_EMULATED __m512d _mm512_loadu_pd(const void* at) { return read<__m512d>(at); }
MF_EMULATED void _mm512_storeu_si512(void* at, __m512i v) { std::memcpy(at, &v, sizeof(v)); }
MF_EMULATED void _mm512_storeu_ps(void* at, __m512 v) { std::memcpy(at, &v, sizeof(v)); }
MF_EMULATED void _mm512_storeu_pd(void* at, __m512d v) { std::memcpy(at, &v, sizeof(v)); }
MF_EMULATED __m512i _mm512_i32gather_epi32(__m512i index, const void* base, int scale) {
  const auto at = [&](int32_t index) { return read<int32_t>(static_cast<const char*>(base) + int64_t(index) * scale); };
  return lanewise<int32_t>(at, index);
}

// The same value everywhere.
MF_EMULATED __m512i _mm512_setzero_si512() { return each<uint64_t>([](int) { return 0; }); }
MF_EMULATED __m512i _mm512_set1_epi8(char v) { return each<char>([&](int) { return v; }); }
MF_EMULATED __m512i _mm512_set1_epi16(short v) { return each<int16_t>([&](int) { return v; }); }
MF_EMULATED __m512i _mm512_set1_epi32(int v) { return each<int32_t>([&](int) { return v; }); }
MF_EMULATED __m512 _mm512_set1_ps(float v) { return each<float, __m512>([&](int) { return v; }); }
MF_EMULATED __m512d _mm512_set1_pd(double v) { return each<double, __m512d>([&](int) { return v; }); }
MF_EMULATED __m512i _mm512_broadcast_i32x4(__m128i v) {
  const auto p = as<uint32_t>(v);
  return each<uint32_t>([&](int i) { return p.lane[i % 4]; });
}

// Bits reinterpreted, halves taken and put.
MF_EMULATED __m512 _mm512_castsi512_ps(__m512i v) { return std::bit_cast<__m512>(v); }
MF_EMULATED __m512i _mm512_castps_si512(__m512 v) { return std::bit_cast<__m512i>(v); }
template <class Half, class Vector>
Half half_of(Vector v, int which) {
  const auto p = as<uint32_t>(v);
  return each<uint32_t, Half>([&](int i) { return p.lane[8 * (which & 1) + i]; });
}
MF_EMULATED __m256 _mm512_castps512_ps256(__m512 v) { return half_of<__m256>(v, 0); }
MF_EMULATED __m256i _mm512_castsi512_si256(__m512i v) { return half_of<__m256i>(v, 0); }
MF_EMULATED __m256 _mm512_extractf32x8_ps(__m512 v, int which) { return half_of<__m256>(v, which); }
MF_EMULATED __m256i _mm512_extracti32x8_epi32(__m512i v, int which) { return half_of<__m256i>(v, which); }
MF_EMULATED __m512 _mm512_insertf32x8(__m512 v, __m256 half, int which) {
  const auto p = as<uint32_t>(v);
  const auto h = as<uint32_t>(half);
  return each<uint32_t, __m512>([&](int i) { return i / 8 == (which & 1) ? h.lane[i % 8] : p.lane[i]; });
}
MF_EMULATED __m512 _mm512_castps256_ps512(__m256 v) {  // whose upper half nothing defines: NaN would show
  return _mm512_insertf32x8(_mm512_set1_ps(std::numeric_limits<float>::quiet_NaN()), v, 0);
}

// Integers, modulo 2**bits.
MF_EMULATED __m512i _mm512_and_si512(__m512i a, __m512i b) { return lanewise<uint64_t>(std::bit_and<>(), a, b); }
MF_EMULATED __m512i _mm512_or_si512(__m512i a, __m512i b) { return lanewise<uint64_t>(std::bit_or<>(), a, b); }
MF_EMULATED __m512i _mm512_add_epi8(__m512i a, __m512i b) { return lanewise<uint8_t>(std::plus<>(), a, b); }
MF_EMULATED __m512i _mm512_sub_epi8(__m512i a, __m512i b) { return lanewise<uint8_t>(std::minus<>(), a, b); }
MF_EMULATED __m512i _mm512_add_epi32(__m512i a, __m512i b) { return lanewise<uint32_t>(std::plus<>(), a, b); }
MF_EMULATED __m512i _mm512_sub_epi32(__m512i a, __m512i b) { return lanewise<uint32_t>(std::minus<>(), a, b); }
MF_EMULATED __m512i _mm512_mullo_epi32(__m512i a, __m512i b) { return lanewise<uint32_t>(std::multiplies<>(), a, b); }
MF_EMULATED __m512i _mm512_min_epu8(__m512i a, __m512i b) {
  return lanewise<uint8_t>([](uint8_t x, uint8_t y) { return x < y ? x : y; }, a, b);
}
MF_EMULATED __m512i _mm512_max_epi32(__m512i a, __m512i b) {
  return lanewise<int32_t>([](int32_t x, int32_t y) { return x > y ? x : y; }, a, b);
}

// Shifts: a count of the lane's width or more leaves zeros. Registers count in their low 64 bits.
template <class T>
__m512i shifted(__m512i v, uint64_t left, uint64_t right) {
  return lanewise<T>([&](T x) { return left + right < 8 * sizeof(T) ? x << left >> right : 0; }, v);
}
MF_EMULATED __m512i _mm512_slli_epi16(__m512i v, unsigned by) { return shifted<uint16_t>(v, by & 0xff, 0); }
MF_EMULATED __m512i _mm512_srli_epi16(__m512i v, unsigned by) { return shifted<uint16_t>(v, 0, by & 0xff); }
MF_EMULATED __m512i _mm512_slli_epi32(__m512i v, unsigned by) { return shifted<uint32_t>(v, by & 0xff, 0); }
MF_EMULATED __m512i _mm512_srli_epi32(__m512i v, unsigned by) { return shifted<uint32_t>(v, 0, by & 0xff); }
MF_EMULATED __m512i _mm512_sll_epi16(__m512i v, __m128i by) { return shifted<uint16_t>(v, as<uint64_t>(by).lane[0], 0); }
MF_EMULATED __m512i _mm512_srl_epi16(__m512i v, __m128i by) { return shifted<uint16_t>(v, 0, as<uint64_t>(by).lane[0]); }

// Products summed: two unsigned bytes by signed ones, saturated; two signed words; four unsigned bytes by signed ones.
MF_EMULATED __m512i _mm512_maddubs_epi16(__m512i a, __m512i b) {
  const auto p = as<uint8_t>(a);
  const auto q = as<int8_t>(b);
  return each<int16_t>([&](int i) {
    const int sum = p.lane[2 * i] * q.lane[2 * i] + p.lane[2 * i + 1] * q.lane[2 * i + 1];
    return sum < -32768 ? -32768 : sum > 32767 ? 32767 : sum;
  });
}
MF_EMULATED __m512i _mm512_madd_epi16(__m512i a, __m512i b) {
  const auto p = as<int16_t>(a), q = as<int16_t>(b);
  return each<int32_t>([&](int i) { return int64_t(p.lane[2 * i]) * q.lane[2 * i] + p.lane[2 * i + 1] * q.lane[2 * i + 1]; });
}
template <class Vector>
Vector sums_of_four(Vector sum, Vector a, Vector b) {
  const auto s = as<uint32_t>(sum);
  const auto p = as<uint8_t>(a);
  const auto q = as<int8_t>(b);
  return each<uint32_t, Vector>([&](int i) {
    int products = 0;
    for (int j = 4 * i; j < 4 * i + 4; ++j) products += p.lane[j] * q.lane[j];
    return s.lane[i] + uint32_t(products);
  });
}
MF_EMULATED __m512i _mm512_dpbusd_epi32(__m512i sum, __m512i a, __m512i b) { return sums_of_four(sum, a, b); }
MF_EMULATED __m256i _mm256_dpbusd_avx_epi32(__m256i sum, __m256i a, __m256i b) { return sums_of_four(sum, a, b); }

// Masks: bit i says something of lane i.
template <class T, class Function>
uint64_t mask_of(__m512i v, Function function) {
  const auto p = as<T>(v);
  uint64_t mask = 0;
  for (int i = 0; i < p.kCount; ++i) mask |= uint64_t(function(p.lane[i], i)) << i;
  return mask;
}
MF_EMULATED __mmask64 _mm512_movepi8_mask(__m512i v) { return mask_of<int8_t>(v, [](int8_t x, int) { return x < 0; }); }
MF_EMULATED __mmask16 _mm512_test_epi32_mask(__m512i a, __m512i b) {
  return mask_of<uint32_t>(_mm512_and_si512(a, b), [](uint32_t x, int) { return x != 0; });
}
MF_EMULATED __mmask16 _mm512_cmplt_epu32_mask(__m512i a, __m512i b) {
  return mask_of<uint32_t>(a, [q = as<uint32_t>(b)](uint32_t x, int i) { return x < q.lane[i]; });
}
template <class T>
__m512i blended(uint64_t mask, __m512i zero, __m512i one) {
  const auto p = as<T>(zero), q = as<T>(one);
  return each<T>([&](int i) { return mask >> i & 1 ? q.lane[i] : p.lane[i]; });
}
MF_EMULATED __m512i _mm512_mask_blend_epi8(__mmask64 mask, __m512i a, __m512i b) { return blended<uint8_t>(mask, a, b); }
MF_EMULATED __m512i _mm512_mask_blend_epi16(__mmask32 mask, __m512i a, __m512i b) { return blended<uint16_t>(mask, a, b); }
MF_EMULATED __m512i _mm512_mask_blend_epi32(__mmask16 mask, __m512i a, __m512i b) { return blended<uint32_t>(mask, a, b); }
MF_EMULATED __m512i _mm512_mask_sub_epi8(__m512i otherwise, __mmask64 mask, __m512i a, __m512i b) {
  return blended<uint8_t>(mask, otherwise, _mm512_sub_epi8(a, b));
}

// Lookups: vpshufb within 16 bytes, 0 where the index's top bit is set; the others anywhere, by the index's low bits, of which
// the highest chooses between two tables.
MF_EMULATED __m512i _mm512_shuffle_epi8(__m512i table, __m512i index) {
  const auto t = as<uint8_t>(table), at = as<uint8_t>(index);
  return each<uint8_t>([&](int i) { return at.lane[i] & 0x80 ? 0 : t.lane[i / 16 * 16 + at.lane[i] % 16]; });
}
template <class T>
__m512i permuted(__m512i first, __m512i index, __m512i second) {
  const auto p = as<T>(first), q = as<T>(second);
  return lanewise<T>([&](T at) { return (at / p.kCount % 2 ? q : p).lane[at % p.kCount]; }, index);
}
MF_EMULATED __m512i _mm512_permutexvar_epi8(__m512i index, __m512i table) { return permuted<uint8_t>(table, index, table); }
MF_EMULATED __m512i _mm512_permutexvar_epi32(__m512i index, __m512i table) { return permuted<uint32_t>(table, index, table); }
MF_EMULATED __m512i _mm512_permutex2var_epi8(__m512i a, __m512i index, __m512i b) { return permuted<uint8_t>(a, index, b); }
MF_EMULATED __m512i _mm512_permutex2var_epi32(__m512i a, __m512i index, __m512i b) { return permuted<uint32_t>(a, index, b); }

// Floats, rounded to nearest.
MF_EMULATED __m512 _mm512_add_ps(__m512 a, __m512 b) { return lanewise<float>(std::plus<>(), a, b); }
MF_EMULATED __m512 _mm512_sub_ps(__m512 a, __m512 b) { return lanewise<float>(std::minus<>(), a, b); }
MF_EMULATED __m512 _mm512_mul_ps(__m512 a, __m512 b) { return lanewise<float>(std::multiplies<>(), a, b); }
MF_EMULATED __m512d _mm512_mul_pd(__m512d a, __m512d b) { return lanewise<double>(std::multiplies<>(), a, b); }
MF_EMULATED __m512 _mm512_fmadd_ps(__m512 a, __m512 b, __m512 c) {
  return lanewise<float>([](float x, float y, float z) { return std::fma(x, y, z); }, a, b, c);
}
MF_EMULATED __m512d _mm512_fmadd_pd(__m512d a, __m512d b, __m512d c) {
  return lanewise<double>([](double x, double y, double z) { return std::fma(x, y, z); }, a, b, c);
}

// Conversions.
template <class From, class To, class Out, class In>
Out converted(In v) {
  const auto p = as<From>(v);
  return each<To, Out>([&](int i) { return p.lane[i]; });
}
MF_EMULATED __m512i _mm512_cvtepu8_epi32(__m128i v) { return converted<uint8_t, int32_t, __m512i>(v); }
MF_EMULATED __m512i _mm512_cvtepu16_epi32(__m256i v) { return converted<uint16_t, int32_t, __m512i>(v); }
MF_EMULATED __m512 _mm512_cvtepi32_ps(__m512i v) { return converted<int32_t, float, __m512>(v); }
MF_EMULATED __m512d _mm512_cvtepi32_pd(__m256i v) { return converted<int32_t, double, __m512d>(v); }
MF_EMULATED __m512d _mm512_cvtps_pd(__m256 v) { return converted<float, double, __m512d>(v); }
MF_EMULATED __m256 _mm512_cvtpd_ps(__m512d v) { return converted<double, float, __m256>(v); }
MF_EMULATED __m512i _mm512_cvttps_epi32(__m512 v) {  // what does not fit, NaN included, becomes the smallest integer
  const auto p = as<float>(v);
  return each<int32_t>([&](int i) {
    return p.lane[i] >= -0x1p31f && p.lane[i] < 0x1p31f ? int32_t(p.lane[i]) : std::numeric_limits<int32_t>::min();
  });
}

#undef MF_EMULATED

}  // namespace
}  // namespace minifloat
