// Tables and shifts from a plan: how each kind of multiplication sees the weight's codes.
#include "job.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

namespace minifloat::cuda {
namespace {

// Stored codes whose values count up by one from the lowest: no table needed.
bool counts_up(const Operand& w) {
  for (int code = 0; code < 1 << w.bits; ++code)
    if (w.values[code ^ w.code_flip] != w.lowest + float(code)) return false;
  return true;
}

bool fits_digit(int value) { return value >= -128 && value <= 127; }

// value = low + 256 * high, both signed bytes; false if it does not fit.
bool split(int value, uint32_t& low, uint32_t& high) {
  const int low_digit = int8_t(value), high_digit = (value - low_digit) / 256;
  low = uint8_t(low_digit), high = uint8_t(high_digit);
  return fits_digit(high_digit);
}

// Where prmt looks them up, of a code of up to 4 bits.
void put_digits(Decoder& d, int code, uint32_t low, uint32_t high) {
  d.table[code / 4] |= low << (code % 4 * 8);
  d.table[4 + code / 4] |= high << (code % 4 * 8);
}

// The 16 bits of a value that float16 (bfloat16) holds exactly; false if it does not.
bool exact_float16(float value, uint32_t& bits) {
  if (value == 0) {
    bits = std::signbit(value) ? 0x8000 : 0;
    return true;
  }
  int exponent;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // value = fraction * 2**exponent, fraction in [0.5, 1)
  if (exponent > 16 || exponent < -23) return false;
  const float units = std::ldexp(fraction, exponent < -13 ? exponent + 24 : 11);  // in units of the last place
  if (units != std::floor(units)) return false;
  const uint32_t whole = uint32_t(units);
  bits = (exponent < -13 ? whole : uint32_t(exponent + 14) << 10 | (whole & 0x3ff)) | (value < 0 ? 0x8000 : 0);
  return true;
}
// Likewise the 8 bits of four of exponent, biased by 7, and three of mantissa.
bool exact_float8(float value, uint32_t& bits) {
  const uint32_t sign = std::signbit(value) ? 0x80 : 0;
  const float magnitude = std::fabs(value);
  for (uint32_t code = 0; code < 0x7f; ++code) {  // 0x7f is NaN
    bits = code | sign;
    if (std::ldexp(float(code < 8 ? code : 8 | (code & 7)), (code < 8 ? 1 : int(code >> 3)) - 10) == magnitude) return true;
  }
  return false;
}
bool exact_bfloat16(float value, uint32_t& bits) {
  bits = std::bit_cast<uint32_t>(value) >> 16;
  return (std::bit_cast<uint32_t>(value) & 0xffff) == 0;
}

// Sign, exponent and mantissa moved by a shift. False if the wider type's exponent has no room.
bool by_shift(const Operand& w, Math math, Decoder& d) {
  if (w.encode_kind != kByMinifloat || w.code_flip) return false;
  const int exponent_bits = w.bits - 1 - w.mantissa_bits, bias = 1 - w.min_exponent;
  const int wide_exponent = math == kMathFloat16 ? 5 : 8, wide_bias = math == kMathFloat16 ? 15 : 127;
  const int field = wide_bias - bias + wide_bias;  // exponent of the multiplier 2**(wide_bias - bias), biased
  if (exponent_bits > wide_exponent || field < 1 || field >= 2 * wide_bias + 1) return false;
  const int width = math == kMathFloat32 ? 32 : 16, mantissa = math == kMathFloat16 ? 10 : math == kMathBFloat16 ? 7 : 23;
  const uint64_t both = width == 16 ? 0x10001u : 1u;
  d.kind = kDecodeMinifloat;
  d.shift = wide_exponent - exponent_bits;
  d.sign_mask = uint32_t((1ull << (width - 1)) * both);
  d.magnitude_mask = uint32_t((((1ull << (w.bits - 1)) - 1) << (width - d.shift - w.bits)) * both);
  d.multiplier = uint32_t((uint64_t(field) << mantissa) * both);
  return true;
}

// The 16 or 32 bits of a value that the type holds exactly; false if it does not.
bool exact_bits(float value, Math math, uint32_t& bits) {
  if (math == kMathFloat16) return exact_float16(value, bits);
  if (math == kMathBFloat16) return exact_bfloat16(value, bits);
  bits = std::bit_cast<uint32_t>(value);
  return true;
}

// Codes of one bit: a value, and the bits in which the other differs.
bool by_two(const Operand& w, Math math, Decoder& d) {
  uint32_t bits[2] = {};
  for (int code = 0; code < 2; ++code)
    if (!exact_bits(w.values[code ^ w.code_flip], math, bits[code])) return false;
  const uint32_t both = math == kMathFloat32 ? 1 : 0x10001u;
  d.kind = kDecodeTwo;
  d.table[0] = bits[0] * both, d.table[1] = (bits[0] ^ bits[1]) * both;
  return true;
}

// float32 numbers that the kernels make sums of 16-bit ones of (fill_terms); false if these would not be within the bound that
// docs/numerics.md derives. For two float16 numbers all are scaled by 2**scaled, so that the largest is between 2**14 and
// 2**15: then those from 2**-13 on keep all 11 bits of both.
bool by_terms(const Operand& w, Math math, Decoder& d, int& scaled) {
  if (w.has_zero_point) return false;
  float largest = 0, smallest = INFINITY;
  const auto value_of = [&](int code) { return w.values[code ^ w.code_flip]; };
  for (int code = 0; code < 1 << w.bits; ++code) {
    const float magnitude = std::fabs(value_of(code));
    if (!(magnitude > 0)) continue;  // no weight has codes of NaN
    largest = std::max(largest, magnitude), smallest = std::min(smallest, magnitude);
  }
  scaled = 0;
  if (math == kMathFloat16x2) {
    scaled = 14 - (largest > 0 ? std::ilogb(largest) : 14);
    if (scaled < 0 || scaled > 30 || std::ldexp(smallest, scaled) < 0x1p-13f) return false;
  } else if (largest > 0x1p127f || smallest < 0x1p-100f) {
    return false;
  }
  d.kind = kDecodeTable, d.more_tables = math == kMathBFloat16x3;
  for (int code = 0; code < 1 << w.bits; ++code)
    d.table[code] = std::bit_cast<uint32_t>(std::ldexp(value_of(code), scaled));
  return true;
}

// Integers lowest + step * digit with digits from 0 to `span`, at most 3; false if there are more.
bool evenly_spaced(const Operand& o, int32_t& lowest, int32_t& step, int& span) {
  const auto is_number = [&](int code) { return o.values[code] == o.values[code]; };
  const int codes = 1 << o.bits;
  lowest = 0, step = 0;
  bool found = false;
  for (int code = 0; code < codes; ++code) {
    if (!is_number(code)) continue;
    lowest = found ? std::min(lowest, o.grid[code]) : o.grid[code];
    found = true;
  }
  int highest = lowest;
  for (int code = 0; code < codes; ++code) {
    if (!is_number(code)) continue;
    step = std::gcd(step, o.grid[code] - lowest), highest = std::max(highest, o.grid[code]);
  }
  if (step == 0) step = 1;  // a single integer
  span = (highest - lowest) / step;
  return found && span <= 3;
}

}  // namespace

bool make_decoder(const Plan& plan, Math math, Decoder& d, int32_t& center) {
  const Operand& w = plan.weight;
  std::memset(&d, 0, sizeof d);
  center = 0;
  const int codes = 1 << w.bits;
  if (math == kMathInt8 || math == kMathInt16) {
    if (math == kMathInt8 && w.bits > 4 && counts_up(w)) {
      d.kind = kDecodeIntegers;
      d.flip = w.bits == 8 ? 0x80808080u : 0;
      center = int(w.lowest) + (w.bits == 8 ? 128 : 0);
      return true;
    }
    d.kind = kDecodeTable;
    if (math == kMathInt8) {
      int low = 0, high = 0;
      for (int code = 0; code < codes; ++code) {
        if (w.values[code] != w.values[code]) continue;
        low = std::min(low, w.grid[code]), high = std::max(high, w.grid[code]);
      }
      if (!fits_digit(low) || !fits_digit(high)) center = low + 128;
    }
    for (int code = 0; code < codes; ++code) {
      const int from = code ^ w.code_flip;
      if (w.values[from] != w.values[from]) continue;  // no weight has these codes
      uint32_t low = 0, high = 0;
      if (!split(w.grid[from] - center, low, high) || (math == kMathInt8 && !fits_digit(w.grid[from] - center))) return false;
      if (w.bits > 4) {
        d.table[code] = low | high << 8;
      } else {
        put_digits(d, code, low, high);
      }
    }
    return true;
  }
  if (math == kMathFloat8) {
    if (w.has_zero_point) return false;
    bool same = w.bits == 8;  // the codes themselves are these floats
    d.kind = kDecodeTable;
    for (int code = 0; code < codes; ++code) {
      uint32_t byte = 0;
      const float value = w.values[code ^ w.code_flip];
      if (value != value) continue;  // no weight has these codes
      if (!exact_float8(value, byte)) return false;
      same &= byte == uint32_t(code);
      if (w.bits > 4) {
        d.table[code] = byte;
      } else {
        d.table[code / 4] |= byte << (code % 4 * 8);
      }
    }
    if (same) d.kind = kDecodeIntegers;  // with no flip
    return true;
  }
  if (math == kMathFloat16x2 || math == kMathBFloat16x3) {
    // One scale for all of K, and a second one: a rounding too many for two terms (docs/numerics.md).
    if (math == kMathFloat16x2 && plan.folds <= 1 && w.scale_kind == kTwoLevel) return false;
    return by_terms(w, math, d, center);
  }
  if (w.bits == 1 && !w.has_zero_point) return by_two(w, math, d);
  if (counts_up(w)) {
    d.kind = kDecodeIntegers;
    d.origin = -w.lowest;
    return true;
  }
  if (w.has_zero_point) return false;
  if (by_shift(w, math, d)) return true;
  const bool by_bytes = math != kMathFloat32 && w.bits <= 4;
  d.kind = by_bytes ? kDecodeBytes : kDecodeTable;
  for (int code = 0; code < codes; ++code) {
    const float value = w.values[code ^ w.code_flip];
    if (value != value) continue;
    uint32_t bits;
    if (!exact_bits(value, math, bits)) return false;
    if (by_bytes) {
      put_digits(d, code, bits & 0xff, bits >> 8);
    } else {
      d.table[code] = bits;
    }
  }
  return true;
}

BitDigits make_bit_digits(const Plan& plan, const Layout& l) {
  const Operand &w = plan.weight, &a = plan.activation;
  BitDigits d{};
  // A product takes 128 k's, which may not hold two folds. Zero points of x would move its digits.
  if (plan.carrier != kInt8 || w.bits > kMostBitPlanes || a.has_zero_point || l.chunks == 0 || (l.folds > 1 && l.fold_padded < 128))
    return d;
  int span;
  if (!evenly_spaced(w, d.weight_lowest, d.weight_step, span) || !evenly_spaced(a, d.x_lowest, d.x_step, span)) return d;
  d.x_planes = span <= 1 ? 1 : 2;
  uint32_t digits[4] = {};
  for (int code = 0; code < 1 << w.bits; ++code) {
    const int from = code ^ w.code_flip;
    if (w.values[from] == w.values[from]) digits[code] = (w.grid[from] - d.weight_lowest) / d.weight_step;
  }
  d.stored_zero = digits[0];
  for (int b = 0; b < kMostBitPlanes; ++b) {  // a function of two bits is a sum modulo 2 of their products
    const auto bit = [&](int code) { return digits[code] >> b & 1; };
    const uint32_t terms[] = {bit(0), bit(0) ^ bit(1), bit(0) ^ bit(2), bit(0) ^ bit(1) ^ bit(2) ^ bit(3)};
    for (int i = 0; i < 4; ++i) d.terms[b][i] = 0u - terms[i];
  }
  return d;
}

bool make_scale_code(const Operand& operand, ScaleCode& scale) {
  scale = {operand.scale_kind, 0, 1.0f};
  if (operand.scale_kind != kTwoLevel) return true;
  for (int mantissa_bits = 0; mantissa_bits < 7; ++mantissa_bits) {
    scale.shift = 23 - mantissa_bits;  // then code 1 << mantissa_bits lands on 2**-126
    scale.multiplier = operand.scale_values[1 << mantissa_bits] * 0x1p126f;
    bool all = true;
    for (int code = 0; code < 256; ++code) {
      const uint32_t bits = uint32_t(code & 0x7f) << scale.shift | uint32_t(code & 0x80) << 24;
      const float value = operand.scale_values[code];
      all &= value != value || std::bit_cast<float>(bits) * scale.multiplier == value;
    }
    if (all) return true;
  }
  return false;
}

}  // namespace minifloat::cuda
