#include "choice.h"

#include <algorithm>
#include <stdexcept>

#include "residues.h"

namespace minifloat {
namespace {

constexpr int64_t kRowsForGemm = 32;
constexpr const char* kDecodes[] = {"registers", "panel", "gemm"};

struct Forced {
  std::string method, decode;
} forced;

// Where it is said to be, a guarded method takes more in marked blocks. kClamped multiplies marked octets twice, and four k's of
// 16 outputs once more for an activation that was cut off: measured, it takes as long as kSigned at these shares.
bool pays(Method method, Rare rare) {
  if (method.guarded) return rare.marked <= 0.125;
  return method.kind != Method::kClamped || rare.marked / 2 + 5 * rare.beyond <= 0.42;
}

Lookup lookup_of(const Plan& p) {
  const int32_t* grid = p.weight.grid;
  if (codes_are_digits(p)) return Lookup::kNone;
  bool magnitudes = p.weight.bits == 6 && !p.weight.code_flip && p.depth >= 1;
  for (int code = 0; code < 32 && magnitudes; ++code)
    magnitudes = (code >= 16 || grid[code] == code) && grid[code + 32] == -grid[code];
  return magnitudes ? Lookup::kMagnitudes : Lookup::kTable;
}

// nullptr if every line that is exact is for panels and `where` is not.
const MethodLine* method_line(const Plan& p, const Traits& traits, Decode where, Lookup lookup, Rare rare) {
  if (traits.has_dot) return kMethods;
  const MethodLine* quickest = nullptr;
  for (const MethodLine& line : kMethods) {
    if (where == Decode::kPanel ? for_registers_only(line.method) : for_panels_only(line.method, lookup)) continue;
    if (line.method.kind == Method::kDot || !line.exact(p) || !line.compiled(p.weight.bits, lookup)) continue;
    if (forced.method == line.name) return &line;
    if (!quickest && pays(line.method, rare)) quickest = &line;
  }
  return quickest;
}

// torch's matrix product is MKL's, whose quickest code runs on Intel's CPUs only. There ours was not measured.
bool quick_gemm() {
  static const bool intel = __builtin_cpu_is("intel");
  return intel;
}

Decode decode(const Plan& p, int64_t m, const Traits& traits, Lookup lookup) {
  const bool gemm = m >= kRowsForGemm && (quick_gemm() || !traits.quick_float);
  if (p.carrier == kFloat && (forced.decode == kDecodes[2] || (forced.decode.empty() && gemm))) return Decode::kGemm;
  const bool selects = !traits.has_dot && may_be_split(p.weight.bits) && lookup != Lookup::kNone;
  const bool shorts = p.carrier == kInt16 || p.carrier == kInt16Windows;
  const int most = shorts               ? traits.most_register_shorts
                   : p.carrier != kInt8 ? traits.most_register_words
                   : selects            ? traits.most_select_rows
                                        : traits.most_register_rows;
  const bool few = m <= most && !(shorts && (m & (m - 1)));
  const bool registers = forced.decode == kDecodes[1] ? false : forced.decode == kDecodes[0] || few;
  return registers && most > 0 ? Decode::kRegisters : Decode::kPanel;
}

template <class Digit>
double share_beyond(const Plan& p, const Digit* digits, int64_t m) {
  const Digit clamp = Digit(byte_limits(p).clamp);
  constexpr int64_t kRows = 64;  // a sample does
  const int64_t rows = std::min(m, kRows);
  int64_t beyond = 0;
  for (int64_t i = 0; i < rows; ++i) {
    const Digit* row = digits + i * m / rows * p.k_padded;
    for (int64_t k = 0; k < p.k_padded; k += kBlock) {
      uint8_t in_block = 0;  // bytes are counted sixteen at a time
      for (int j = 0; j < kBlock; ++j) in_block += row[k + j] > clamp || row[k + j] < -clamp;
      beyond += in_block;
    }
  }
  return double(beyond) / double(std::max<int64_t>(rows * p.k, 1));
}

}  // namespace

double share_beyond_clamp(const Plan& p, const void* digits, int64_t m) {
  if (p.carrier == kInt8) return share_beyond(p, static_cast<const int8_t*>(digits), m);
  return share_beyond(p, static_cast<const int16_t*>(digits), m);
}

Choice choose(const Plan& p, int64_t m, const Traits& traits, Rare rare) {
  const Lookup lookup = p.carrier == kInt8 ? lookup_of(p) : Lookup::kTable;
  Decode where = decode(p, m, traits, lookup);
  if (p.carrier == kInt16) {
    if (traits.has_dot || forced.method == kWords) return {kWords, where};
    const bool few = has_two_digits(p) && forced.decode != kDecodes[1] && m <= kFewRows;
    const bool pay = residues_pay(p, m, rare.residues) && (m <= kFewRows || pays({Method::kClamped, 4}, rare));
    const bool residues = forced.method == kResidues || (pay && forced.method != kTwoDigits && (few || forced.decode != kDecodes[0]));
    if (rare.residues > 0 && residues) return {kResidues, few ? Decode::kRegisters : Decode::kPanel, !few};
    if (has_two_digits(p) && (forced.method == kTwoDigits || few)) return {kTwoDigits, Decode::kRegisters};
    return {kWords, where};
  }
  if (p.carrier != kInt8) return {"", where};
  const MethodLine* line = method_line(p, traits, where, lookup, rare);
  if (!line) line = method_line(p, traits, where = Decode::kPanel, lookup, rare);
  return {line->name, where, line->method.kind == Method::kClamped, lookup};
}

void force_choice(const std::string& method, const std::string& decode) {
  bool known = method.empty();
  std::string names;
  const auto name = [&](const char* name) {
    known |= method == name;
    names += (names.empty() ? "" : ", ") + std::string(name);
  };
  for (const MethodLine& line : kMethods) name(line.name);
  for (const char* of_int16 : {kTwoDigits, kResidues, kWords}) name(of_int16);
  if (!known) throw std::invalid_argument("unknown method '" + method + "', there are: " + names);
  if (!decode.empty() && decode != kDecodes[0] && decode != kDecodes[1] && decode != kDecodes[2])
    throw std::invalid_argument("unknown way to decode '" + decode + "', there are: registers, panel, gemm");
  forced = {method, decode};
}

}  // namespace minifloat
