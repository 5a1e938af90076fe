// Exact sums that no machine type holds: each product significand is added at its shift to a fixed-point accumulator that is
// wide enough for any float32-valued format (a Kulisch accumulator). Slow, plain, and always right.
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "kernels.h"
#include "layout.h"

namespace minifloat {
namespace {

class WideSum {
 public:
  // value += significand * 2**shift, shift >= 0
  void add(int64_t significand, int shift) {
    const __int128 moved = static_cast<__int128>(significand) << (shift % 32);  // at most 48 + 32 bits
    __int128 carry = moved;
    for (int i = shift / 32; i < kWords; ++i) {
      carry += words_[i];
      words_[i] = uint32_t(carry);
      carry >>= 32;  // arithmetic: the sign goes on into the higher words
      if (carry == 0) return;
    }
  }
  // float32(value * 2**unit), rounded once to nearest even
  float rounded(int unit) const {
    uint32_t magnitude[kWords];
    const bool negative = words_[kWords - 1] >> 31;
    uint64_t carry = negative;
    for (int i = 0; i < kWords; ++i) {
      carry += negative ? uint32_t(~words_[i]) : words_[i];
      magnitude[i] = uint32_t(carry);
      carry >>= 32;
    }
    int top = kWords - 1;
    while (top >= 0 && magnitude[top] == 0) --top;
    if (top < 0) return 0.0f;
    // 53 bits with a sticky last bit: the float32 rounding that follows is then the only one.
    const int width = 32 * top + 32 - std::countl_zero(magnitude[top]);
    const int cut = width > 53 ? width - 53 : 0;
    uint64_t kept = 0;
    bool sticky = false;
    for (int i = 0; i <= top; ++i) {
      const int at = 32 * i - cut;
      if (at >= 0) {
        kept |= uint64_t(magnitude[i]) << at;
      } else if (at > -32) {
        kept |= magnitude[i] >> -at;
        sticky |= (magnitude[i] << (32 + at)) != 0;
      } else {
        sticky |= magnitude[i] != 0;
      }
    }
    const double value = std::ldexp(double(kept | sticky), cut + unit);
    return float(negative ? -value : value);
  }

 private:
  static constexpr int kWords = 20;  // 640 bits: two operands of 2**-149 .. 2**128 and 2**64 products
  uint32_t words_[kWords] = {};
};

float scale_value(const Operand& o, const uint8_t* scales, int64_t index) {
  switch (o.scale_kind) {
    case kFloat32: {
      float value;
      std::memcpy(&value, scales + 4 * index, 4);
      return value;
    }
    case kBFloat16: {
      uint16_t half;
      std::memcpy(&half, scales + 2 * index, 2);
      return std::bit_cast<float>(uint32_t(half) << 16);
    }
    case kPowerOfTwo:
      return std::ldexp(1.0f, int(scales[index]) - 127);
    default:
      return o.scale_values[scales[index]];
  }
}

}  // namespace

void linear_wide(const LinearArgs& a, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const bool grouped = p.activation.granularity == kGroup;
  const int64_t a_groups = activation_groups(p);
  const int64_t w_per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  const int64_t a_per_scale = grouped ? p.activation.group_size / p.fold : p.folds;
  const WideDigit* x = static_cast<const WideDigit*>(a.x.digits);
  std::vector<uint8_t> codes(p.k * kPanel);
  for (int64_t i = begin; i < end; ++i) {
    panel_codes(p, a.weight, i, codes.data());
    const uint8_t* scales = a.weight + l.scales_at + i * l.groups * kPanel * scale_bytes(p.weight);
    const uint8_t* zero_points = a.weight + l.zero_points_at + i * l.groups * kPanel;
    for (int64_t m = 0; m < a.m; ++m) {
      for (int64_t o = 0; o < kPanel && i * kPanel + o < p.n; ++o) {
        float y = 0;
        for (int64_t f = 0; f < p.folds; ++f) {
          const int64_t at = (f / w_per_scale) * kPanel + o;  // of the output's scale and zero point
          const int32_t zero_point = p.weight.has_zero_point ? p.weight.grid[zero_points[at]] : 0;
          WideSum sum;
          for (int64_t k = f * p.fold; k < (f + 1) * p.fold; ++k) {
            const uint8_t code = codes[o * p.k + k];
            const WideDigit& digit = x[m * p.k_padded + padded_position(p, k)];
            sum.add(int64_t(p.weight.significand[code] - zero_point) * digit.significand,
                    p.weight.shift[code] + digit.shift);
          }
          float scale = scale_value(p.weight, scales, at);
          if (grouped) scale = scale * a.x.scales[m * a_groups + f / a_per_scale];
          y = y + sum.rounded(p.unit) * scale;
        }
        if (!grouped) y = y * a.x.scales[m];
        y = y * p.weight.tensor_scale;
        y = y * a.x.tensor_scale;
        if (a.bias) y = y + a.bias[i * kPanel + o];
        a.y[m * p.n + i * kPanel + o] = y;
      }
    }
  }
}

}  // namespace minifloat
