// Reading memory once, as quickly as this machine does it while a layer's call would run: OpenMP threads as a layer's, a part of
// the bytes each, eight streams a thread. Compiled and called by contenders/reading.py.

#include <immintrin.h>
#include <omp.h>

#include <cstdint>

// Returns the exclusive or of all whole 64-byte lines of the streams; what does not fill a line of every stream is left out.
extern "C" __attribute__((target("avx2"))) uint64_t read_once(const uint8_t* data, int64_t bytes, int threads) {
  constexpr int kStreams = 8;
  uint64_t out = 0;
#pragma omp parallel num_threads(threads) reduction(^ : out)
  {
    const int64_t stream = bytes / threads / kStreams / 64 * 64;
    const uint8_t* part = data + omp_get_thread_num() * kStreams * stream;
    __m256i even = _mm256_setzero_si256(), odd = even;
    for (int64_t at = 0; at < stream; at += 64) {
#pragma GCC unroll 8
      for (int s = 0; s < kStreams; ++s) {
        const __m256i* line = reinterpret_cast<const __m256i*>(part + s * stream + at);
        even = _mm256_xor_si256(even, _mm256_loadu_si256(line));
        odd = _mm256_xor_si256(odd, _mm256_loadu_si256(line + 1));
      }
    }
    even = _mm256_xor_si256(even, odd);
    out ^= _mm256_extract_epi64(even, 0) ^ _mm256_extract_epi64(even, 1) ^ _mm256_extract_epi64(even, 2) ^
           _mm256_extract_epi64(even, 3);
  }
  return out;
}
