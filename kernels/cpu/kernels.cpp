#include "kernels.h"

#include <cpuid.h>

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace minifloat {
namespace {

bool cpu_has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

#ifdef MINIFLOAT_EMULATED
bool cpu_has_avxvnni() { return cpu_has_avx2(); }
bool cpu_has_avx512vnni() { return cpu_has_avx2(); }
#else
// GCC 12's __builtin_cpu_supports does not know avxvnni: CPUID leaf 7, subleaf 1, EAX bit 4.
bool cpu_has_avxvnni() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return cpu_has_avx2() && __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) && (eax >> 4 & 1);
}

bool cpu_has_avx512vnni() {
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}
#endif

struct Candidate {
  const Kernels* kernels;
  bool (*supported)();
};
// From the plainest to the widest: the last one that the CPU supports is the default.
constexpr Candidate kCandidates[] = {
    {&kScalarKernels, [] { return true; }},
    {&kAvx2Kernels, cpu_has_avx2},
    {&kAvxVnniKernels, cpu_has_avxvnni},
    {&kAvx512VnniKernels, cpu_has_avx512vnni},
};

const Kernels& find(const std::string& isa) {
  std::string names;
  for (const Candidate& c : kCandidates) {
    if (!c.supported()) continue;
    if (isa == c.kernels->name) return *c.kernels;
    names += (names.empty() ? "" : ", ") + std::string(c.kernels->name);
  }
  throw std::invalid_argument("MINIFLOAT_ISA=" + isa + " but this CPU supports: " + names);
}

const Kernels& default_kernels() {
  const char* forced = std::getenv("MINIFLOAT_ISA");
  return find(forced && *forced ? forced : supported_isas().back());
}

std::atomic<const Kernels*> active{nullptr};

}  // namespace

const Kernels& active_kernels() {
  const Kernels* chosen = active.load(std::memory_order_relaxed);
  if (!chosen) active = chosen = &default_kernels();
  return *chosen;
}

void select_kernels(const std::string& isa) { active = &find(isa); }

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Candidate& c : kCandidates)
    if (c.supported()) names.push_back(c.kernels->name);
  return names;
}

}  // namespace minifloat
