// What the loop nests on 8-bit digits share: sums, panels with their scales, the outputs of a tile, and the order of tiles.
#pragma once

#include "choice.h"
#include "decode.h"

namespace minifloat {
namespace {

// The sums of a tile: in registers, or in memory where the int16 sums or other panels' sums take the registers.
template <class Isa, int kCount>
struct RegisterSums {
  typename Isa::Ints sums[kCount];
  explicit RegisterSums(uint8_t*) {}
  MF_INLINE typename Isa::Ints get(int r) const { return sums[r]; }
  MF_INLINE void set(int r, typename Isa::Ints v) { sums[r] = v; }
};

template <class Isa>
struct MemorySums {
  uint8_t* at;
  explicit MemorySums(uint8_t* at) : at(at) {}
  MF_INLINE typename Isa::Ints get(int r) const { return Isa::load_ints(at + r * kRowBytes); }
  MF_INLINE void set(int r, typename Isa::Ints v) { Isa::store_ints(at + r * kRowBytes, v); }
};

// A panel with its scales as floats, times 2**unit where that is exact and no other scale is to be multiplied first.
template <class Isa>
struct ScaledPanel : Panel {
  static constexpr bool kHasUnit = false, kPlain = false;
  float* scales_as_floats;  // (groups, 16)
  float unit;               // what a sum is still to be multiplied by before its scale

  ScaledPanel(const Plan& p, const Layout& l, const uint8_t* weight, int64_t index, float* to)
      : Panel(p, l, weight, index), scales_as_floats(to) {
    const float factor = std::ldexp(1.0f, p.unit);
    bool foldable = p.activation.granularity != kGroup;
    for (int64_t g = 0; g < l.groups; ++g) {
      auto scale = load_scales<Isa>(p.weight, scales, g);
      if (foldable) scale = Isa::mul(scale, Isa::splat(factor));
      foldable = foldable && Isa::all_normal(scale);
      Isa::store_floats(to + g * kPanel, scale);
    }
    unit = foldable ? 1.0f : factor;
    if (foldable || p.activation.granularity == kGroup) return;
    for (int64_t g = 0; g < l.groups; ++g) Isa::store_floats(to + g * kPanel, load_scales<Isa>(p.weight, scales, g));
  }
  MF_INLINE typename Isa::Floats scale(int64_t group) const { return Isa::load_floats(scales_as_floats + group * kPanel); }
};

// Whether the sum of a fold is only multiplied by its weights' scale.
inline bool has_plain_folds(const Plan& p) { return !p.weight.has_zero_point && p.activation.granularity != kGroup; }

// A panel whose scales are read once, as they are stored: of any kind, or powers of two where folds are plain. Among rows of blocks
// that come from memory a choice for every fold is felt.
template <class Isa, bool kPlainPowers>
struct UnscaledPanel : Panel {
  static constexpr bool kHasUnit = true, kPlain = kPlainPowers;
  const Operand& weight;
  float unit;

  UnscaledPanel(const Plan& p, const Layout& l, const uint8_t* layout, int64_t index)
      : Panel(p, l, layout, index), weight(p.weight), unit(std::ldexp(1.0f, p.unit)) {}
  MF_INLINE typename Isa::Floats scale(int64_t group) const {
    if constexpr (kPlainPowers) return Isa::from_power_of_two(scales + group * kPanel);
    else return load_scales<Isa>(weight, scales, group);
  }
};

// Bytes to bring into the cache while a tile is computed, `step` (a multiple of a line) per step.
struct Ahead {
  const uint8_t* at;
  int64_t step;
  MF_INLINE void fetch() {
    for (int64_t b = 0; b < step; b += kRowBytes) __builtin_prefetch(at + b, 0, 2);
    at += step;
  }
};

// For `bytes` in all, in `steps` steps.
inline int64_t ahead_step(int64_t bytes, int64_t steps) {
  return bytes > 0 && steps > 0 ? ceil_div(ceil_div(bytes, steps), kRowBytes) * kRowBytes : 0;
}

// The outputs of a tile: kRows rows from m on, of kPanels panels. Folds are added in order.
template <class Isa, int kPanels, int kRows, bool kHaveOffset, class AnyPanel = ScaledPanel<Isa>>
struct TileOutputs {
  const LinearArgs& args;
  const AnyPanel* panels;
  const int64_t m, a_groups = activation_groups(*args.plan);
  const int64_t w_per_scale = folds_per_scale(args.plan->weight), a_per_scale = folds_per_scale(args.plan->activation);
  bool plain = has_plain_folds(*args.plan);
  int64_t w_group = 0, w_left = w_per_scale;
  typename Isa::Floats y[kPanels * kRows];

  MF_INLINE TileOutputs(const LinearArgs& args, const AnyPanel* panels, int64_t m) : args(args), panels(panels), m(m) {
    for (int i = 0; i < kPanels; ++i) plain = plain && (AnyPanel::kHasUnit || panels[i].unit == 1.0f);
    MF_UNROLL for (int i = 0; i < kPanels * kRows; ++i) {
      y[i] = Isa::splat(0.0f);
      __builtin_prefetch(args.y + (m + i % kRows) * args.plan->n + panels[i / kRows].first_output, 1);
    }
  }
  int64_t folds_per_scale(const Operand& o) const {
    return o.granularity == kGroup ? o.group_size / args.plan->fold : args.plan->folds;
  }
  // y += the sums of panel i, fold f, which stand at `first` and behind it, times their scales. kHaveOffset: they are of weights
  // minus the offset.
  template <class Sums>
  MF_INLINE void add_fold(int64_t f, int i, const Sums& sums, int first) {
    const Plan& p = *args.plan;
    const auto w_scale = panels[i].scale(w_group);
    if (AnyPanel::kPlain || plain) {
      MF_UNROLL for (int r = 0; r < kRows; ++r) {
        auto value = Isa::to_float(sums.get(first + r));
        if constexpr (AnyPanel::kHasUnit) value = Isa::mul(value, Isa::splat(panels[i].unit));
        y[i * kRows + r] = Isa::add(y[i * kRows + r], Isa::mul(value, w_scale));
      }
      return;
    }
    auto correction = Isa::splat_int(0);
    if (p.weight.has_zero_point) {
      alignas(64) float zero_points[kPanel];
      zero_point_values(p, panels[i], w_group, zero_points);
      correction = Isa::sub_int(Isa::splat_int(kHaveOffset ? p.offset : 0), Isa::to_int(Isa::load_floats(zero_points)));
    }
    for (int r = 0; r < kRows; ++r) {
      const auto fix = Isa::mul_int(correction, Isa::splat_int(args.x.sums[(m + r) * p.folds + f]));
      const auto value = Isa::mul(Isa::to_float(Isa::add_int(sums.get(first + r), fix)), Isa::splat(panels[i].unit));
      auto scale = w_scale;
      if (p.activation.granularity == kGroup)
        scale = Isa::mul(scale, Isa::splat(args.x.scales[(m + r) * a_groups + f / a_per_scale]));
      y[i * kRows + r] = Isa::add(y[i * kRows + r], Isa::mul(value, scale));
    }
  }
  MF_INLINE void end_fold() {
    if (--w_left > 0) return;
    ++w_group;
    w_left = w_per_scale;
  }
  MF_INLINE void finish_all() const {
    MF_UNROLL for (int i = 0; i < kPanels * kRows; ++i) finish<Isa>(args, panels[i / kRows], m + i % kRows, y[i]);
  }
};

// Calls body(kRows as a constant, m, Ahead) for all rows from m to `rows`, in tiles of kRows and what is left in smaller ones:
// 4 rows as 2 and 2 where 3 and 1 would take a pass more. The first tiles fetch `next`, the panel to come, in `steps` steps each.
template <int kRows, class Body>
void for_tiles(int64_t rows, int64_t m, int64_t steps, const uint8_t* next, int64_t next_bytes, Body body) {
  if constexpr (kRows > 0) {
    const int64_t left = rows - m;
    const int64_t count = kRows == 3 && left % 3 == 1 && left >= 4 ? left / 3 - 1 : left / kRows;
    const int64_t step = ahead_step(next_bytes, count * steps);
    for (int64_t i = 0; i < count; ++i, m += kRows) {
      body(std::integral_constant<int, kRows>(), m, Ahead{next, next_bytes > 0 ? step : 0});
      next += step * steps;
      next_bytes -= step * steps;
    }
    for_tiles<kRows == 3 ? 2 : kRows / 2>(rows, m, steps, next, std::max<int64_t>(next_bytes, 0), body);
  }
}

}  // namespace
}  // namespace minifloat
