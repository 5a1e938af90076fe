#include "kernels.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace minifloat {
namespace {

bool cpu_has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

struct Choice {
  const Kernels* kernels;
  bool (*supported)();
};
// From the plainest to the widest: the last one that the CPU supports is the default.
constexpr Choice kChoices[] = {
    {&kScalarKernels, [] { return true; }},
    {&kAvx2Kernels, cpu_has_avx2},
};

const Kernels& find(const std::string& isa) {
  std::string names;
  for (const Choice& c : kChoices) {
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
  for (const Choice& c : kChoices)
    if (c.supported()) names.push_back(c.kernels->name);
  return names;
}

}  // namespace minifloat
