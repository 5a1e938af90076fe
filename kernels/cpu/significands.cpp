#include "significands.h"

namespace minifloat {
namespace {

int exponent_bits(const Operand& o) { return o.bits - 1 - o.mantissa_bits; }

}  // namespace

int significand_windows(const Plan& p) {
  const Operand& o = p.weight;
  if (o.encode_kind != kByMinifloat || !o.is_signed || o.mantissa_bits > 6 || exponent_bits(o) < 1) return 0;
  if (p.carrier == kInt16) return o.bits >= 5 && exponent_bits(o) <= 3 ? 1 : 0;
  if (p.carrier == kInt16Pair) return exponent_bits(o) <= 4 ? 1 : exponent_bits(o) == 5 ? 2 : 0;
  return 0;
}

SignificandTable significand_table(const Operand& o, int window) {
  SignificandTable t{};
  t.mantissa_bits = o.mantissa_bits;
  t.exponent_mask = uint8_t((1 << exponent_bits(o)) - 1);
  if (exponent_bits(o) == 5) t.select = window ? 0xf0 : 0x70;  // of fields 0..15, or 16..31, these leave the top bit clear
  for (int i = 0; i < 16; ++i) {
    const int exponent = window ? i + 16 : i & t.exponent_mask;
    const int shift = (exponent ? exponent - 1 : 0) - window * kWindowShift;
    t.hidden[i] = exponent ? uint8_t(1 << o.mantissa_bits) : 0;
    (shift < kHighShift ? t.low : t.high)[i] = uint8_t(1 << (shift < kHighShift ? shift : shift - kHighShift));
  }
  return t;
}

}  // namespace minifloat
