// What this machine can do at best: reading DRAM, and the instructions that matrix products are made of.
// Usage: ceilings THREADS [ISA] -> one JSON object: GB/s and Gop/s (a multiply-add counts as two) of THREADS threads.
// ISA is what our kernels run on (avx2, avx_vnni, avx512, avx512_vnni); wider instructions are then left out.

#include <immintrin.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <functional>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

namespace {

constexpr int kTries = 48;
constexpr int kLoops = 300'000;            // some 1 ms
constexpr size_t kWindow = size_t{32} << 20;  // read in one try, beyond the second-level cache; each try takes another

double now(clockid_t clock) {
  timespec t;
  clock_gettime(clock, &t);
  return t.tv_sec + 1e-9 * t.tv_nsec;
}

// Seconds that `body` took on all threads together, from the first start to the last end; or, where neighbours on the
// same cores should not count, the mean CPU time of a thread.
double seconds_of(int threads, bool cpu_time, const std::function<void(int)>& body) {
  std::atomic<int> ready{0};
  std::vector<std::thread> pool;
  std::vector<double> begin(threads), end(threads), used(threads);
  for (int t = 0; t < threads; ++t) {
    pool.emplace_back([&, t] {
      ++ready;
      while (ready.load() < threads) std::this_thread::yield();
      const double cpu = now(CLOCK_THREAD_CPUTIME_ID);
      begin[t] = now(CLOCK_MONOTONIC);
      body(t);
      end[t] = now(CLOCK_MONOTONIC);
      used[t] = now(CLOCK_THREAD_CPUTIME_ID) - cpu;
    });
  }
  for (auto& thread : pool) thread.join();
  if (cpu_time) return std::accumulate(used.begin(), used.end(), 0.0) / threads;
  return *std::max_element(end.begin(), end.end()) - *std::min_element(begin.begin(), begin.end());
}

// The best of many short tries: a ceiling is what the machine reaches when nobody disturbs it.
double best_rate(int threads, bool cpu_time, double amount_per_thread, const std::function<void(int, int)>& body) {
  double best = 0;
  for (int i = 0; i < kTries; ++i) {
    const double took = seconds_of(threads, cpu_time, [&](int t) { body(t, i); });
    best = std::max(best, threads * amount_per_thread / took);
  }
  return best / 1e9;
}

volatile uint64_t sink;

// Reads `bytes` as concurrent sequential streams, one cache line of each in turn. The streams start nine lines off a
// multiple of the page size from each other: otherwise all of them would compete for the same cache sets.
template <int kStreams>
__attribute__((target("avx2"))) void read_streams(const uint8_t* data, size_t bytes) {
  const size_t part = bytes / kStreams / 4096 * 4096, length = part - kStreams * 576;
  __m256i sum = _mm256_setzero_si256();
  for (size_t at = 0; at + 64 <= length; at += 64) {
#pragma GCC unroll 8
    for (int s = 0; s < kStreams; ++s) {
      const __m256i* line = reinterpret_cast<const __m256i*>(data + s * (part + 576) + at);
      sum = _mm256_xor_si256(sum, _mm256_xor_si256(_mm256_loadu_si256(line), _mm256_loadu_si256(line + 1)));
    }
  }
  sink = _mm256_extract_epi64(sum, 0);
}

// Twelve independent chains (registers 0 to 11) hide the latency of every instruction measured here; 12 and 13 hold
// operands, 14 and 15 products. Assembler, because a compiler may spill, fuse or drop parts of such a loop.
#define TWELVE(S, R) \
  S(R, "0", "14") S(R, "1", "15") S(R, "2", "14") S(R, "3", "15") S(R, "4", "14") S(R, "5", "15") \
  S(R, "6", "14") S(R, "7", "15") S(R, "8", "14") S(R, "9", "15") S(R, "10", "14") S(R, "11", "15")

#define KERNEL(NAME, R, S)                                                                                          \
  void NAME(int, int) {                                                                                             \
    long loops = kLoops;                                                                                            \
    asm volatile("vzeroall\n1:\n\t" TWELVE(S, R) "dec %0\n\tjnz 1b\n\tvzeroupper"                                  \
                 : "+r"(loops)                                                                                      \
                 :                                                                                                  \
                 : "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",   \
                   "xmm11", "xmm12", "xmm13", "xmm14", "xmm15");                                                    \
  }

#define ON(OP, R, A, B, TO) OP " %%" R A ", %%" R B ", %%" R TO "\n\t"
#define FMA(R, N, T) ON("vfmadd231ps", R, "12", "13", N)
#define MADDUBS_ADD(R, N, T) ON("vpmaddubsw", R, "12", "13", T) ON("vpaddw", R, T, N, N)
#define MADDUBS_WIDEN(R, N, T) ON("vpmaddubsw", R, "12", "13", T) ON("vpmaddwd", R, "12", T, T) ON("vpaddd", R, T, N, N)
#define MADDWD_ADD(R, N, T) ON("vpmaddwd", R, "12", "13", T) ON("vpaddd", R, T, N, N)
#define SHUFFLE_ADD(R, N, T) ON("vpshufb", R, "12", "13", T) ON("vpaddb", R, T, N, N)
#define DPBUSD_VEX(R, N, T) ON("%{vex%} vpdpbusd", R, "12", "13", N)
#define DPBUSD(R, N, T) ON("%{evex%} vpdpbusd", R, "12", "13", N)

KERNEL(fma_256, "ymm", FMA)
KERNEL(maddubs_add_256, "ymm", MADDUBS_ADD)
KERNEL(maddubs_widen_256, "ymm", MADDUBS_WIDEN)
KERNEL(maddwd_add_256, "ymm", MADDWD_ADD)
KERNEL(shuffle_add_256, "ymm", SHUFFLE_ADD)
KERNEL(dpbusd_vex_256, "ymm", DPBUSD_VEX)
KERNEL(fma_512, "zmm", FMA)
KERNEL(maddubs_add_512, "zmm", MADDUBS_ADD)
KERNEL(maddubs_widen_512, "zmm", MADDUBS_WIDEN)
KERNEL(dpbusd_512, "zmm", DPBUSD)

struct Instruction {
  const char* name;
  bool wide;        // needs AVX-512
  bool vnni;
  double ops;       // per chain step
  bool supported;
  void (*run)(int, int);
};

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const std::string isa = argc > 2 ? argv[2] : "avx512_vnni";
  const bool wide = isa.find("512") != std::string::npos, vnni = isa.find("vnni") != std::string::npos;
  __builtin_cpu_init();
  const bool has512 = __builtin_cpu_supports("avx512bw"), has_vnni512 = __builtin_cpu_supports("avx512vnni");
  const bool has_vex_vnni = argc > 3 && std::strcmp(argv[3], "avx_vnni") == 0;  // GCC 12 cannot ask for it by name
  const Instruction table[] = {
      {"float32_fma_avx2", false, false, 16, true, fma_256},
      {"int8_maddubs_add_avx2", false, false, 64, true, maddubs_add_256},
      {"int8_maddubs_widen_avx2", false, false, 64, true, maddubs_widen_256},
      {"int16_maddwd_add_avx2", false, false, 32, true, maddwd_add_256},
      {"lookup_pshufb_add_avx2", false, false, 32, true, shuffle_add_256},
      {"int8_dpbusd_avxvnni", false, true, 64, has_vex_vnni, dpbusd_vex_256},
      {"float32_fma_avx512", true, false, 32, has512, fma_512},
      {"int8_maddubs_add_avx512", true, false, 128, has512, maddubs_add_512},
      {"int8_maddubs_widen_avx512", true, false, 128, has512, maddubs_widen_512},
      {"int8_dpbusd_avx512", true, true, 128, has_vnni512, dpbusd_512},
  };
  const size_t bytes = size_t{192} << 20;  // per thread, well beyond the caches
  std::vector<uint8_t*> buffers;
  for (int t = 0; t < threads; ++t) {
    void* memory = nullptr;
    if (posix_memalign(&memory, size_t{2} << 20, bytes)) return 1;
    madvise(memory, bytes, MADV_HUGEPAGE);  // a refusal only makes the figure smaller
    std::memset(memory, t + 1, bytes);
    buffers.push_back(static_cast<uint8_t*>(memory));
  }
  std::printf("{\"threads\": %d", threads);
  void (*const readers[])(const uint8_t*, size_t) = {read_streams<1>, read_streams<4>, read_streams<8>};
  const int streams[] = {1, 4, 8};
  for (int r = 0; r < 3; ++r) {
    const double rate = best_rate(threads, false, double(kWindow), [&](int t, int i) {
      readers[r](buffers[t] + i * kWindow % bytes, kWindow);
    });
    std::printf(", \"dram_%d_streams_gbs\": %.1f", streams[r], rate);
  }
  for (const Instruction& i : table) {
    if (!i.supported || (i.wide && !wide) || (i.vnni && !vnni)) continue;
    std::printf(", \"%s_gops\": %.1f", i.name, best_rate(threads, true, 12.0 * kLoops * i.ops, i.run));
  }
  std::printf("}\n");
}
