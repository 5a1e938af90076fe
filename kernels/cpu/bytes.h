// Loops over rows of activation digits in bytes, of which GCC makes a few times the instructions: it widens and narrows bytes in
// steps of its own. For instruction sets that say MINIFLOAT_AVX2 (their target regions define no macro); elsewhere plain.
#pragma once

#include <array>
#include <bit>
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

// Bytes cut off at +-limit, plus `plus`, and what was cut off from those above and from those below.
void cut_off(const int8_t* from, int64_t count, int8_t limit, int8_t plus, uint8_t* kept, uint8_t* over, uint8_t* under) {
  int64_t i = 0;
#ifdef MINIFLOAT_AVX2
  const __m256i high = _mm256_set1_epi8(limit), low = _mm256_set1_epi8(char(-limit)), all_plus = _mm256_set1_epi8(plus);
  for (; i + 32 <= count; i += 32) {
    const __m256i bytes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i below = _mm256_min_epi8(bytes, high), clamped = _mm256_max_epi8(below, low);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(kept + i), _mm256_add_epi8(clamped, all_plus));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(over + i), _mm256_sub_epi8(bytes, below));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(under + i), _mm256_sub_epi8(clamped, below));
  }
#endif
  for (; i < count; ++i) {
    const int below = from[i] > limit ? limit : from[i], clamped = below < -limit ? -limit : below;
    kept[i] = uint8_t(clamped + plus);
    over[i] = uint8_t(from[i] - below);
    under[i] = uint8_t(clamped - below);
  }
}

// Of 32 bytes minus `plus`, in both halves: whether the squares of every fourth two (those at 0, 1, 4, 5 .. and at 2, 3, 6, 7 ..)
// sum up to `most` or less.
bool squares_within(const uint8_t* bytes, int8_t plus, int32_t most) {
#ifdef MINIFLOAT_AVX2
  const __m256i x = _mm256_sub_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)), _mm256_set1_epi8(plus));
  const __m256i first = _mm256_cvtepi8_epi16(_mm256_castsi256_si128(x)), second = _mm256_cvtepi8_epi16(_mm256_extracti128_si256(x, 1));
  const __m256i low = _mm256_madd_epi16(first, first), high = _mm256_madd_epi16(second, second);
  const __m256i pairs = _mm256_add_epi32(_mm256_unpacklo_epi64(low, high), _mm256_unpackhi_epi64(low, high));
  const __m128i sums = _mm_add_epi32(_mm256_castsi256_si128(pairs), _mm256_extracti128_si256(pairs, 1));
  return _mm_movemask_epi8(_mm_cmpgt_epi32(sums, _mm_set1_epi32(most))) == 0;
#else
  int32_t sums[4] = {};
  for (int i = 0; i < 32; ++i) sums[i / 16 * 2 + i % 4 / 2] += (bytes[i] - plus) * (bytes[i] - plus);
  return sums[0] <= most && sums[1] <= most && sums[2] <= most && sums[3] <= most;
#endif
}

// The words (four bytes) that are not 0, and first + their places; to `words` and `at`, which have room for 8 more than there are.
// Returns how many.
int64_t collect_words(const uint8_t* from, int64_t count, int32_t first, uint32_t* words, int32_t* at) {
  int64_t found = 0, i = 0;
#ifdef MINIFLOAT_AVX2
  // By which of eight words are wanted: their places, in order.
  static constexpr auto kPlaces = [] {
    std::array<std::array<uint8_t, 8>, 256> places{};
    for (int wanted = 0; wanted < 256; ++wanted)
      for (int place = 0, to = 0; place < 8; ++place)
        if (wanted >> place & 1) places[wanted][to++] = uint8_t(place);
    return places;
  }();
  for (; i + 32 <= count; i += 32) {
    const __m256i eight = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    const __m256i zero = _mm256_cmpeq_epi32(eight, _mm256_setzero_si256());
    const unsigned wanted = unsigned(_mm256_movemask_ps(_mm256_castsi256_ps(zero))) ^ 255;
    const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPlaces[wanted].data()));
    const __m256i places = _mm256_cvtepu8_epi32(bytes);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(words + found), _mm256_permutevar8x32_epi32(eight, places));
    const __m256i before = _mm256_set1_epi32(first + int32_t(i / 4));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at + found), _mm256_add_epi32(places, before));
    found += std::popcount(wanted);
  }
#endif
  for (; i < count; i += 4) {
    uint32_t word;
    __builtin_memcpy(&word, from + i, 4);
    words[found] = word;
    at[found] = first + int32_t(i / 4);
    found += word != 0;
  }
  return found;
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

#ifdef MINIFLOAT_AVX2  // for kernels that no other set has
// int16 digits of which k's 1 and 2 of every four are exchanged (significands.h), as bytes in order. count: a multiple of 32.
void narrow_exchanged(const int16_t* from, int64_t count, int8_t* to) {
  const __m256i order = _mm256_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15,  //
                                         0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15);
  for (int64_t i = 0; i < count; i += 32) {
    const __m256i* at = reinterpret_cast<const __m256i*>(from + i);
    const __m256i bytes = _mm256_packs_epi16(_mm256_loadu_si256(at), _mm256_loadu_si256(at + 1));
    const __m256i in_order = _mm256_shuffle_epi8(_mm256_permute4x64_epi64(bytes, 0xd8), order);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), in_order);
  }
}

// 16 rows of `count` bytes, a multiple of 16, side by side: to (count + 1, 16), `apart` bytes from k to k, the last one 0.
void transpose_rows(const int8_t* from, int64_t count, int8_t* to, int64_t apart) {
  for (int64_t k = 0; k < count; k += 16) {
    __m128i rows[16], mixed[16];
    for (int r = 0; r < 16; ++r) rows[r] = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + r * count + k));
    for (int step = 0; step < 4; ++step) {  // rows r and r + 8 become neighbours: four times, and columns are rows
      for (int r = 0; r < 8; ++r) {
        mixed[2 * r] = _mm_unpacklo_epi8(rows[r], rows[r + 8]);
        mixed[2 * r + 1] = _mm_unpackhi_epi8(rows[r], rows[r + 8]);
      }
      for (int r = 0; r < 16; ++r) rows[r] = mixed[r];
    }
    for (int r = 0; r < 16; ++r) _mm_storeu_si128(reinterpret_cast<__m128i*>(to + (k + r) * apart), rows[r]);
  }
  for (int r = 0; r < 16; ++r) to[count * apart + r] = 0;
}
#endif

}  // namespace
}  // namespace minifloat
