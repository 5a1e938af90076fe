// Scales and rounding of activations and weights: plain loops that the compiler vectorises for the including file's target.
// Every float step is one rounded float32 operation, in the order that docs/numerics.md states.
#pragma once

#include "bytes.h"
#include "kernels.h"
#include "significands.h"

namespace minifloat {
namespace {

inline uint32_t bits_of(float x) { return std::bit_cast<uint32_t>(x); }
inline float float_of(uint32_t bits) { return std::bit_cast<float>(bits); }

constexpr uint32_t kInfinityBits = 0x7f800000u;
constexpr float kSmallestScale = 0x1p-126f;
constexpr float kLargestFloat = 0x1.fffffep127f;
constexpr float kLargestBFloat16 = 0x1.fep127f;
constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();

// Non-negative floats order like their bits, so the maximum is an integer one; NaN and infinity show as large.
float magnitude(const float* x, int64_t count, bool is_signed) {
  int32_t top = 0, any = 0;
  for (int64_t i = 0; i < count; ++i) {
    const int32_t bits = std::bit_cast<int32_t>(x[i]);
    const int32_t absolute = bits & 0x7fffffff;
    any = absolute > any ? absolute : any;
    top = bits > top ? bits : top;
  }
  if (uint32_t(any) >= kInfinityBits) return kNaN;
  return float_of(is_signed ? any : top);
}

float clamp_scale(float s) {
  if (s != s) return s;
  return s < kSmallestScale ? kSmallestScale : s > kLargestFloat ? kLargestFloat : s;
}

int rank_of(const float* thresholds, float t) {  // how many thresholds t has reached, of 255
  int rank = 0;
  for (int step = 128; step; step >>= 1) rank += t >= thresholds[rank + step - 1] ? step : 0;
  return rank;
}

// The scale as stored, from the magnitude of the values it covers.
float stored_scale(const Operand& o, float raw) {
  if (raw != raw) return raw;
  switch (o.scale_kind) {
    case kBFloat16: {
      const float clamped = clamp_scale(raw);
      const uint32_t bits = bits_of(clamped > kLargestBFloat16 ? kLargestBFloat16 : clamped);
      return float_of((bits + 0x7fffu + ((bits >> 16) & 1)) & 0xffff0000u);
    }
    case kTwoLevel:
      return o.scale_values[1 + rank_of(o.scale_thresholds, raw)];
    default:
      return clamp_scale(raw);
  }
}

float scale_of(const Operand& o, float top, float tensor_scale) {
  if (top != top) return top;
  if (o.scale_kind == kPowerOfTwo) {  // OCP MX: floor(log2(absmax)) - floor(log2(largest element))
    int exponent = top == 0 ? -126 : std::ilogb(top) - o.scale_exponent;
    exponent = exponent < -126 ? -126 : exponent > 127 ? 127 : exponent;
    return float_of(uint32_t(exponent + 127) << 23);
  }
  const float raw = top / o.scale_max;
  return stored_scale(o, o.scale_kind == kTwoLevel ? raw / tensor_scale : raw);
}

// Zero point and scale so that [min(x, 0), max(x, 0)] fits [lowest, highest].
void affine_scale(const Operand& o, const float* x, int64_t count, float& scale, float& zero_point) {
  if (const float all = magnitude(x, count, true); all != all) {  // NaN or infinity, which the comparisons below would miss
    scale = all;
    zero_point = 0;
    return;
  }
  float bottom = 0, top = 0;
  for (int64_t i = 0; i < count; ++i) {
    bottom = x[i] < bottom ? x[i] : bottom;
    top = x[i] > top ? x[i] : top;
  }
  scale = stored_scale(o, (top - bottom) / (o.highest - o.lowest));
  const float z = std::nearbyintf(o.lowest - bottom / scale);
  zero_point = z < o.lowest ? o.lowest : z > o.highest ? o.highest : z;
}

// The value (a float) that x / step rounds to; for integers plus zero_point, minus it again.
struct RoundInteger {
  float low, high, zero_point;
  float operator()(float t) const {
    t = t > -1e6f ? t : -1e6f;
    t = t < 1e6f ? t : 1e6f;
    float r = ((t + kRoundToInteger) - kRoundToInteger) + zero_point;
    r = r > low ? r : low;
    r = r < high ? r : high;
    return r - zero_point;
  }
};

// Round the significand to mantissa_bits by adding and subtracting 1.5 * 2**23 units of the last place of the result.
struct RoundMinifloat {
  float highest, lowest;
  uint32_t min_exponent_bits, magic_shift;
  explicit RoundMinifloat(const Operand& o)
      : highest(o.highest),
        lowest(o.lowest),
        min_exponent_bits(uint32_t(o.min_exponent + 127) << 23),
        magic_shift((uint32_t(23 - o.mantissa_bits) << 23) | 0x00400000u) {}
  float operator()(float t) const {
    t = t > lowest ? t : lowest;
    t = t < highest ? t : highest;
    const uint32_t bits = bits_of(t), sign = bits & 0x80000000u;
    uint32_t exponent = bits & kInfinityBits;
    exponent = int32_t(exponent) > int32_t(min_exponent_bits) ? exponent : min_exponent_bits;
    const float magic = float_of(exponent + magic_shift);
    const float r = (float_of(bits ^ sign) + magic) - magic;
    return float_of(bits_of(r) | sign);
  }
};

struct RoundByTable {
  const Operand& o;
  float operator()(float t) const { return o.values[o.codes[rank_of(o.thresholds, t)]]; }
};

template <class Digit, class Round>
void round_run(const float* x, int64_t count, float step, float to_grid, Digit* out, Round round) {
  for (int64_t i = 0; i < count; ++i) out[i] = static_cast<Digit>(round(x[i] / step) * to_grid);
}

template <class Digit>
void round_run(const Operand& o, const float* x, int64_t count, float step, float zero_point, float to_grid, Digit* out) {
  if (step != step) {  // the scale carries the NaN to the result
    for (int64_t i = 0; i < count; ++i) out[i] = 0;
    return;
  }
  switch (o.encode_kind) {
    case kByInteger:
      if constexpr (std::is_same_v<Digit, int8_t>) {
        if (zero_point == 0 && to_grid == 1) return round_to_bytes(x, count, step, o.lowest, o.highest, out);
      }
      return round_run(x, count, step, to_grid, out, RoundInteger{o.lowest, o.highest, zero_point});
    case kByMinifloat:
      return round_run(x, count, step, to_grid, out, RoundMinifloat(o));
    default:
      return round_run(x, count, step, to_grid, out, RoundByTable{o});
  }
}

// The scale and zero point of one group.
void group_scale(const Operand& o, const float* x, int64_t count, const Shared& shared, float& scale, float& zero_point) {
  zero_point = shared.zero_point;
  if (shared.given) {
    scale = shared.scale;
  } else if (o.has_zero_point) {
    affine_scale(o, x, count, scale, zero_point);
  } else {
    scale = scale_of(o, magnitude(x, count, o.is_signed), shared.tensor_scale);
  }
}

Shared shared_scale(const Operand& o, const float* x, int64_t count) {
  Shared shared;
  if (o.scale_kind == kTwoLevel) {
    const float largest_scale = o.scale_values[1 + rank_of(o.scale_thresholds, kLargestFloat)];
    shared.tensor_scale = clamp_scale(magnitude(x, count, o.is_signed) / (largest_scale * o.scale_max));
  }
  if (o.granularity == kTensor) {
    group_scale(o, x, count, shared, shared.scale, shared.zero_point);
    shared.given = true;
  }
  return shared;
}

uint8_t code_of(const Operand& o, float t) {
  if (t != t) return o.nan_code < 0 ? 0 : o.nan_code;
  const uint8_t code = o.codes[rank_of(o.thresholds, t)];
  return o.values[code] == 0 && std::signbit(t) && o.negative_zero_code >= 0 ? o.negative_zero_code : code;
}

void round_run(const Operand& o, const float* x, int64_t count, float step, float zero_point, float, WideDigit* out) {
  for (int64_t i = 0; i < count; ++i) {
    const float t = x[i] / step;
    if (o.has_zero_point) {
      out[i] = {int32_t(RoundInteger{o.lowest, o.highest, zero_point}(t)), 0};
    } else {
      const uint8_t code = step != step ? 0 : code_of(o, t);
      out[i] = {o.significand[code], o.shift[code]};
    }
  }
}

template <class Digit>
void quantize_digits_as(const Plan& p, const float* x, const Shared& shared, const Activations& to, int64_t begin,
                        int64_t end) {
  const Operand& o = p.activation;
  const float to_grid = std::is_integral_v<Digit> ? std::ldexp(1.0f, -o.unit) : 1.0f;
  const int64_t groups = activation_groups(p), length = groups ? p.k / groups : 0;
  const bool exchanged = std::is_same_v<Digit, int16_t> && multiplies_significands(p);
  for (int64_t m = begin; m < end; ++m) {
    const float* row = x + m * p.k;
    Digit* digits = static_cast<Digit*>(to.digits) + m * p.k_padded;
    if (p.k != p.k_padded) std::fill(digits, digits + p.k_padded, Digit{});
    for (int64_t g = 0; g < groups; ++g) {
      float scale, zero_point;
      group_scale(o, row + g * length, length, shared, scale, zero_point);
      to.scales[m * groups + g] = scale;
      const float step = scale * shared.tensor_scale;
      for (int64_t k = g * length; k < (g + 1) * length; k += p.fold)  // folds are padded apart
        round_run(o, row + k, p.fold, step, zero_point, to_grid, digits + padded_position(p, k));
    }
    if (exchanged) {
      for (int64_t k = 0; k < p.k_padded; k += 4) std::swap(digits[k + 1], digits[k + 2]);
    }
    if constexpr (std::is_integral_v<Digit>) {
      for (int64_t f = 0; f < p.folds; ++f) {
        const Digit* fold = digits + f * p.fold_padded;
        int32_t& sum = to.sums[m * p.folds + f];
        if constexpr (std::is_same_v<Digit, int8_t>) sum = sum_of_bytes(fold, p.fold_padded);
        else sum = std::accumulate(fold, fold + p.fold_padded, int32_t{0});
      }
    }
  }
}

void quantize_codes(const CodesArgs& a, const float* x, int64_t begin, int64_t end) {
  const Operand& o = *a.operand;
  const int64_t length = a.groups ? a.k / a.groups : 0;
  const unsigned mask = (1u << o.bits) - 1;
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t g = 0; g < a.groups; ++g) {
      const int64_t at = m * a.groups + g;
      const float* run = x + m * a.k + g * length;
      uint8_t* codes = a.codes + m * a.k + g * length;
      float scale = a.scales[at], zero_point = a.zero_points ? a.zero_points[at] : 0;
      if (!a.scales_given) group_scale(o, run, length, a.shared, scale, zero_point);
      a.scales[at] = scale;
      if (a.zero_points) a.zero_points[at] = zero_point;
      const float step = scale * a.shared.tensor_scale;
      if (o.has_zero_point) {
        const RoundInteger round{o.lowest, o.highest, zero_point};
        for (int64_t i = 0; i < length; ++i) codes[i] = unsigned(int(round(run[i] / step) + zero_point)) & mask;
      } else {
        for (int64_t i = 0; i < length; ++i) codes[i] = code_of(o, run[i] / step);
      }
    }
  }
}

void quantize_digits(const Plan& p, const float* x, const Shared& shared, const Activations& to, int64_t begin,
                     int64_t end) {
  switch (p.carrier) {
    case kInt8:
      return quantize_digits_as<int8_t>(p, x, shared, to, begin, end);
    case kInt16:
    case kInt16Windows:
      return quantize_digits_as<int16_t>(p, x, shared, to, begin, end);
    case kFloat64:
      return quantize_digits_as<double>(p, x, shared, to, begin, end);
    case kWide:
      return quantize_digits_as<WideDigit>(p, x, shared, to, begin, end);
    default:  // kFloat: x itself, spread to the layout's K
      for (int64_t m = begin; m < end; ++m) {
        float* row = static_cast<float*>(to.digits) + m * p.k_padded;
        std::fill(row, row + p.k_padded, 0.0f);
        for (int64_t k = 0; k < p.k; k += p.fold)
          std::copy(x + m * p.k + k, x + m * p.k + k + p.fold, row + padded_position(p, k));
      }
  }
}

void dequantize(const CodesArgs& a, float* out, int64_t begin, int64_t end) {
  const Operand& o = *a.operand;
  const int64_t length = a.groups ? a.k / a.groups : 0;
  for (int64_t m = begin; m < end; ++m) {
    for (int64_t g = 0; g < a.groups; ++g) {
      const int64_t at = m * a.groups + g;
      const float step = a.scales[at] * a.shared.tensor_scale;
      const float zero_point = a.zero_points ? a.zero_points[at] : 0;
      const int64_t first = m * a.k + g * length;
      for (int64_t i = first; i < first + length; ++i) out[i] = (o.values[a.codes[i]] - zero_point) * step;
    }
  }
}

}  // namespace
}  // namespace minifloat
