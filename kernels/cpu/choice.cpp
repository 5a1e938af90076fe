#include "choice.h"

#include <stdexcept>

namespace minifloat {
namespace {

constexpr int64_t kRowsForGemm = 32;
constexpr const char* kDecodes[] = {"registers", "panel", "gemm"};

struct Forced {
  std::string method, decode;
} forced;

const char* method_name(const Plan& p, const Traits& traits, Decode decode) {
  if (p.carrier != kInt8) return "";
  if (traits.has_dot) return kMethods[0].name;
  const bool by_table = digits_by_table(p);
  const char* quickest = nullptr;
  for (const MethodLine& line : kMethods) {
    if (for_panels_only(line.method) && decode != Decode::kPanel) continue;
    if (line.method.kind == Method::kDot || !line.exact(p) || !line.compiled(p.weight.bits, by_table)) continue;
    if (!quickest) quickest = line.name;
    if (forced.method == line.name) return line.name;
  }
  return quickest;
}

// torch's matrix product is MKL's, whose quickest code runs on Intel's CPUs only. There ours was not measured.
bool quick_gemm() {
  static const bool intel = __builtin_cpu_is("intel");
  return intel;
}

Decode decode(const Plan& p, int64_t m, const Traits& traits) {
  const bool gemm = m >= kRowsForGemm && (quick_gemm() || !traits.quick_float);
  if (p.carrier == kFloat && (forced.decode == kDecodes[2] || (forced.decode.empty() && gemm))) return Decode::kGemm;
  const bool selects = !traits.has_dot && p.weight.bits >= 5 && p.weight.bits <= 7;
  const int most = p.carrier != kInt8                     ? traits.most_register_words
                   : selects && digits_by_table(p) ? traits.most_select_rows
                                                          : traits.most_register_rows;
  const bool registers = forced.decode == kDecodes[1] ? false : forced.decode == kDecodes[0] || m <= most;
  return registers && most > 0 ? Decode::kRegisters : Decode::kPanel;
}

}  // namespace

bool digits_by_table(const Plan& p) {
  for (int code = 0; code < (1 << p.weight.bits); ++code)
    if (p.weight.grid[code ^ p.weight.code_flip] - p.offset != code) return true;
  return false;
}

Choice choose(const Plan& p, int64_t m, const Traits& traits) {
  const Decode where = decode(p, m, traits);
  return {method_name(p, traits, where), where};
}

void force_choice(const std::string& method, const std::string& decode) {
  bool known = method.empty();
  std::string names;
  for (const MethodLine& line : kMethods) {
    known |= method == line.name;
    names += (names.empty() ? "" : ", ") + std::string(line.name);
  }
  if (!known) throw std::invalid_argument("unknown method '" + method + "', there are: " + names);
  if (!decode.empty() && decode != kDecodes[0] && decode != kDecodes[1] && decode != kDecodes[2])
    throw std::invalid_argument("unknown way to decode '" + decode + "', there are: registers, panel, gemm");
  forced = {method, decode};
}

}  // namespace minifloat
