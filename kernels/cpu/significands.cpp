#include "significands.h"

#include <algorithm>

namespace minifloat {
namespace {

int exponent_bits(const Operand& o) { return o.bits - 1 - o.mantissa_bits; }

// Exponent fields 0 and 1 both mean shift 0.
int shift_of(int field) { return std::max(field - 1, 0); }

int largest_shift(const Operand& o) {
  int largest = 0;
  for (int code = 0; code < 1 << (o.bits - 1); ++code)
    if (o.values[code] == o.values[code]) largest = std::max(largest, shift_of(code >> o.mantissa_bits));
  return largest;
}

// Shifts per window: significands of mantissa_bits + 1 bits, digits of 14.
int width(const Operand& o) { return 14 - o.mantissa_bits; }

}  // namespace

int significand_windows(const Plan& p) {
  const Operand& o = p.weight;
  if (p.carrier == kInt16Windows) return largest_shift(o) / width(o) + 1;
  const bool fields = o.encode_kind == kByMinifloat && o.is_signed && o.mantissa_bits <= 6 && o.bits >= 5;
  return p.carrier == kInt16 && fields && exponent_bits(o) >= 1 && exponent_bits(o) <= 3 ? 1 : 0;
}

SignificandWindow significand_window(const Operand& o, int window) {
  const int highest = largest_shift(o) - window * width(o), lowest = std::max(highest - width(o) + 1, 0);
  SignificandWindow t{};
  t.exponent_mask = uint8_t((1 << exponent_bits(o)) - 1);
  t.first = exponent_bits(o) > 4 && lowest > 0 ? uint8_t(lowest + 1) : 0;
  t.mantissa_bits = o.mantissa_bits;
  t.widen = 6 - o.mantissa_bits;
  t.shift = lowest;
  for (int i = 0; i < 16; ++i) {
    const int field = t.first + i, shift = shift_of(field) - lowest;
    if (field > t.exponent_mask || shift < 0 || shift > highest - lowest) continue;
    t.hidden[i] = field ? uint8_t(1 << o.mantissa_bits) : 0;
    t.widened[i] = shift > 7 ? 0x80 : 0;
    t.powers[i] = uint8_t(1 << (shift > 7 ? shift - t.widen : shift));
  }
  return t;
}

int smallest_code(const Operand& o, int window) {
  const int shift = significand_window(o, window).shift;
  return shift ? (shift + 1) << o.mantissa_bits : 1;
}

}  // namespace minifloat
