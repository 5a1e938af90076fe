// Loops over rows of activation digits in bytes, of which GCC makes a few times the instructions: it widens and narrows bytes in
// steps of its own. For instruction sets that say MINIFLOAT_AVX2 (their target regions define no macro); elsewhere plain.
#pragma once

#include <cstdint>

namespace minifloat {
namespace {

constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2**23: adding and subtracting it rounds |t| < 2**22 to nearest even

// x / step, rounded to the nearest even integer of [low, high], which are integers of int8. NaN gives low.
void round_to_bytes(const float* x, int64_t count, float step, float low, float high, int8_t* to) {
  int64_t i = 0;
#ifdef MINIFLOAT_AVX2
  const auto rounded = [&](int64_t at) {
    const __m256 t = _mm256_max_ps(_mm256_div_ps(_mm256_loadu_ps(x + at), _mm256_set1_ps(step)), _mm256_set1_ps(low));
    return _mm256_cvtps_epi32(_mm256_min_ps(t, _mm256_set1_ps(high)));
  };
  // Both kinds of packing keep the halves of a register apart, so that a word of four bytes is at 4 * (word % 2) + word / 2.
  const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  for (; i + 32 <= count; i += 32) {
    const __m256i first = _mm256_packs_epi32(rounded(i), rounded(i + 8));
    const __m256i second = _mm256_packs_epi32(rounded(i + 16), rounded(i + 24));
    const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(first, second), in_order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), bytes);
  }
#endif
  for (; i < count; ++i) {
    float t = x[i] / step;
    t = t > low ? t : low;
    t = t < high ? t : high;
    to[i] = int8_t((t + kRoundToInteger) - kRoundToInteger);
  }
}

// Bytes cut off at +-limit, plus limit, and what was cut off.
void cut_off(const int8_t* from, int64_t count, int8_t limit, uint8_t* kept, int8_t* rest) {
  int64_t i = 0;
#ifdef MINIFLOAT_AVX2
  const __m256i high = _mm256_set1_epi8(limit), low = _mm256_set1_epi8(char(-limit));
  for (; i + 32 <= count; i += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i clamped = _mm256_max_epi8(_mm256_min_epi8(bytes, high), low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(kept + i), _mm256_add_epi8(clamped, high));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(rest + i), _mm256_sub_epi8(bytes, clamped));
  }
#endif
  for (; i < count; ++i) {
    const int clamped = from[i] > limit ? limit : from[i] < -limit ? -limit : from[i];
    kept[i] = uint8_t(clamped + limit);
    rest[i] = int8_t(from[i] - clamped);
  }
}

int32_t sum_of_bytes(const int8_t* from, int64_t count) {
  int64_t i = 0;
  int32_t sum = 0;
#ifdef MINIFLOAT_AVX2
  const __m256i bias = _mm256_set1_epi8(-128);  // as unsigned bytes, 128 too large
  __m256i sums = _mm256_setzero_si256();
  for (; i + 32 <= count; i += 32) {
    const __m256i bytes = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i)), bias);
    sums = _mm256_add_epi64(sums, _mm256_sad_epu8(bytes, _mm256_setzero_si256()));
  }
  alignas(32) int64_t parts[4];
  _mm256_store_si256(reinterpret_cast<__m256i*>(parts), sums);
  sum = int32_t(parts[0] + parts[1] + parts[2] + parts[3] - 128 * i);
#endif
  for (; i < count; ++i) sum += from[i];
  return sum;
}

// Sums of bytes 2 i and 2 i + 1.
void sums_of_pairs(const int8_t* from, int64_t pairs, int16_t* to) {
  int64_t i = 0;
#ifdef MINIFLOAT_AVX2
  const __m256i ones = _mm256_set1_epi8(1);
  for (; i + 16 <= pairs; i += 16) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + 2 * i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_maddubs_epi16(ones, bytes));
  }
#endif
  for (; i < pairs; ++i) to[i] = int16_t(from[2 * i] + from[2 * i + 1]);
}

}  // namespace
}  // namespace minifloat
