// Scales and rounding of activations: kernels/cpu/quantize.h for one thread, operation for operation (docs/numerics.md).
#pragma once

#include "activations.h"
#include "ptx.cuh"

namespace minifloat::cuda {

constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr float kNaN = __builtin_nanf("");

// The largest magnitudes on either side of zero, as bits: non-negative floats order like their bits, NaN and infinity show
// as large, and a maximum does not depend on the order in which it was found.
struct Extremes {
  uint32_t positive = 0, negative = 0;

  MF_DEVICE void take(float x) {
    const uint32_t bits = bits_of(x), magnitude = bits & 0x7fffffffu;
    take(bits == magnitude ? Extremes{magnitude, 0} : Extremes{0, magnitude});
  }
  MF_DEVICE void take(const Extremes& other) {
    positive = other.positive > positive ? other.positive : positive;
    negative = other.negative > negative ? other.negative : negative;
  }
  MF_DEVICE bool finite() const { return positive < kInfinityBits && negative < kInfinityBits; }
  MF_DEVICE float magnitude(bool is_signed) const {  // NaN if anything is not finite
    if (!finite()) return kNaN;
    return float_of(is_signed && negative > positive ? negative : positive);
  }
};

MF_DEVICE float clamp_scale(float s) {
  if (s != s) return s;
  return s < 0x1p-126f ? 0x1p-126f : s > 0x1.fffffep127f ? 0x1.fffffep127f : s;
}

MF_DEVICE int rank_of(const float* thresholds, float t) {  // how many thresholds t has reached, of 255
  int rank = 0;
#pragma unroll
  for (int step = 128; step; step >>= 1) rank += t >= thresholds[rank + step - 1] ? step : 0;
  return rank;
}

MF_DEVICE float stored_scale(const Rounding& o, float raw) {
  if (raw != raw) return raw;
  if (o.scale_kind == kTwoLevel) return o.scale_values[rank_of(o.scale_thresholds, raw)];
  const float clamped = clamp_scale(raw);
  if (o.scale_kind != kBFloat16) return clamped;
  const uint32_t bits = bits_of(clamped > 0x1.fep127f ? 0x1.fep127f : clamped);
  return float_of((bits + 0x7fffu + ((bits >> 16) & 1)) & 0xffff0000u);
}

MF_DEVICE int exponent_of(float positive) {  // floor(log2(positive))
  const uint32_t bits = bits_of(positive);
  if (bits >> 23) return int(bits >> 23) - 127;
  int e = -127;  // subnormal: 2**-127 has its bit 22 set
  for (uint32_t bit = 1u << 22; !(bits & bit); bit >>= 1) --e;
  return e;
}

MF_DEVICE float scale_of(const Rounding& o, float top, float tensor_scale) {
  if (top != top) return top;
  if (o.scale_kind == kPowerOfTwo) {  // OCP MX: floor(log2(absmax)) - floor(log2(largest element))
    int exponent = top == 0 ? -126 : exponent_of(top) - o.scale_exponent;
    exponent = exponent < -126 ? -126 : exponent > 127 ? 127 : exponent;
    return float_of(uint32_t(exponent + 127) << 23);
  }
  const float raw = div(top, o.scale_max);
  return stored_scale(o, o.scale_kind == kTwoLevel ? div(raw, tensor_scale) : raw);
}

struct Step {
  float scale, zero_point;
};

// [min(x, 0), max(x, 0)] onto [lowest, highest] with a zero point, absmax onto scale_max without.
MF_DEVICE Step step_of(const Rounding& o, const Extremes& e, float tensor_scale) {
  if (!o.has_zero_point) return {scale_of(o, e.magnitude(o.is_signed), tensor_scale), 0};
  if (!e.finite()) return {kNaN, 0};
  const float top = float_of(e.positive), bottom = -float_of(e.negative);
  const float scale = stored_scale(o, div(sub(top, bottom), sub(o.highest, o.lowest)));
  const float z = rintf(sub(o.lowest, div(bottom, scale)));
  return {scale, z < o.lowest ? o.lowest : z > o.highest ? o.highest : z};
}

MF_DEVICE float second_level_scale(const Rounding& o, const Extremes& e) {
  return clamp_scale(div(e.magnitude(o.is_signed), mul(o.largest_scale, o.scale_max)));
}

constexpr float kRoundToInteger = 12582912.0f;  // 1.5 * 2**23: adding and subtracting it rounds |t| < 2**22 to nearest even

// The integer that x / step rounds to, zero point subtracted. tables: thresholds and grid where a lane may index them freely.
MF_DEVICE int round_to_grid(const Rounding& o, const float* thresholds, const int16_t* grid, float x, float step,
                            float zero_point) {
  float t = div(x, step);
  if (o.encode_kind == kByInteger) {
    t = t > -1e6f ? t : -1e6f;
    t = t < 1e6f ? t : 1e6f;
    float r = add(sub(add(t, kRoundToInteger), kRoundToInteger), zero_point);
    r = r > o.lowest ? r : o.lowest;
    r = r < o.highest ? r : o.highest;
    return int(sub(r, zero_point));
  }
  if (o.encode_kind == kByMinifloat) {  // adding 1.5 * 2**23 units of the result's last place rounds to that place
    t = t > o.lowest ? t : o.lowest;
    t = t < o.highest ? t : o.highest;
    const uint32_t bits = bits_of(t), sign = bits & 0x80000000u, least = uint32_t(o.min_exponent + 127) << 23;
    uint32_t exponent = bits & kInfinityBits;
    exponent = exponent > least ? exponent : least;
    const float magic = float_of(exponent + ((uint32_t(23 - o.mantissa_bits) << 23) | 0x00400000u));
    const float r = sub(add(float_of(bits ^ sign), magic), magic);
    return int(mul(float_of(bits_of(r) | sign), o.to_grid));
  }
  return grid[rank_of(thresholds, t)];
}

}  // namespace minifloat::cuda
