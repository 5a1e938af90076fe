#include "significands.h"

#include <cmath>

namespace minifloat {
namespace {

// Fills the table and returns true if the operand's grid is made of such fields.
bool significands_of(const Operand& o, bool pair, SignificandTable& t) {
  const int exponent_bits = o.bits - 1 - o.mantissa_bits;
  if (o.encode_kind != kByMinifloat || exponent_bits < 1 || exponent_bits > 4 || o.mantissa_bits > 6) return false;
  t = {};
  t.mantissa_bits = o.mantissa_bits;
  const int exponent_mask = (1 << exponent_bits) - 1;
  for (int i = 0; i < 16; ++i) {
    const int exponent = i & exponent_mask, shift = exponent ? exponent - 1 : 0;
    if (!pair && shift > kHighShift) return false;
    t.hidden[i] = exponent ? 1 << o.mantissa_bits : 0;
    const bool high = pair && shift >= kHighShift;
    (high ? t.high : t.low)[i] = 1 << (high ? shift - kHighShift : shift);
  }
  for (int code = 0; code < (1 << o.bits); ++code) {
    if (o.values[code] != o.values[code] || std::isinf(o.values[code])) continue;  // weights hold numbers only
    const int exponent = (code >> o.mantissa_bits) & exponent_mask;
    const int significand = (code & ((1 << o.mantissa_bits) - 1)) | t.hidden[exponent];
    const int magnitude = significand * (t.low[exponent] + (t.high[exponent] << kHighShift));
    if (o.grid[code] != (code >> (o.bits - 1) ? -magnitude : magnitude)) return false;
  }
  return true;
}

}  // namespace

bool multiplies_significands(const Plan& p, SignificandTable* table) {
  SignificandTable t;
  if (p.carrier != kInt16Pair && (p.carrier != kInt16 || p.weight.bits < 5)) return false;
  return significands_of(p.weight, p.carrier == kInt16Pair, table ? *table : t);
}

}  // namespace minifloat
