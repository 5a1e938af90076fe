// y = x @ w.T with weights as unsigned and activations as signed 8-bit digits (carrier kInt8).
//
// A weight is held as grid - offset, 0..255; the sum of products is corrected by (offset - zero point) * sum of activations.
// Without a dot-product instruction, pairs of u8 x s8 products are summed in int16: `depth` of them fit by the plan's proof,
// then they are widened. Digits too wide even for one pair are split into nibbles.
#pragma once

#include "decode.h"

namespace minifloat {
namespace {

// The 16 k's of a half block, for kRows rows of activations. Few rows leave the dot products waiting for each other's sums:
// then a second chain of sums (the upper half of `sums`) takes every other product.
template <class Isa, int kDepth, int kRows, int kChains, class Source>
MF_INLINE void add_half(const Source& source, int64_t half, const int8_t* const* x, typename Isa::Ints* sums) {
  using Bytes = typename Isa::Bytes;
  const int8_t* at[kRows];
  for (int r = 0; r < kRows; ++r) at[r] = x[r] + 16 * half;
  if constexpr (Isa::kHasDot) {
    for_quads([&](auto q) __attribute__((always_inline)) {
      const Bytes w = source.template quad<q>(half);
      typename Isa::Ints* to = sums + (kChains == 2 && q % 2 ? kRows : 0);
      for (int r = 0; r < kRows; ++r) to[r] = Isa::dot(to[r], w, Isa::splat4(at[r] + 4 * q));
    });
  } else if constexpr (kDepth == 0) {
    typename Isa::Shorts low[kRows], high[kRows];
    for_quads([&](auto q) __attribute__((always_inline)) {
      const Bytes w = source.template quad<q>(half);
      const Bytes w_low = Isa::template field<0, 0, 4>(w), w_high = Isa::template field<4, 0, 4>(w);
      for (int r = 0; r < kRows; ++r) {
        const Bytes a = Isa::splat4(at[r] + 4 * q);
        low[r] = q == 0 ? Isa::pair_dot(w_low, a) : Isa::add16(low[r], Isa::pair_dot(w_low, a));
        high[r] = q == 0 ? Isa::pair_dot(w_high, a) : Isa::add16(high[r], Isa::pair_dot(w_high, a));
      }
    });
    for (int r = 0; r < kRows; ++r) {
      sums[r] = Isa::widen_add(sums[r], low[r], 1);
      sums[r] = Isa::widen_add(sums[r], high[r], 16);
    }
  } else {
    typename Isa::Shorts partial[kRows];
    for_quads([&](auto q) __attribute__((always_inline)) {
      const Bytes w = source.template quad<q>(half);
      for (int r = 0; r < kRows; ++r) {
        const auto product = Isa::pair_dot(w, Isa::splat4(at[r] + 4 * q));
        partial[r] = q % kDepth == 0 ? product : Isa::add16(partial[r], product);
        if constexpr ((q + 1) % kDepth == 0) sums[r] = Isa::widen_add(sums[r], partial[r], 1);
      }
    });
  }
}

// Half blocks [begin, end). Decoding from planes is cheaper where the compiler sees which half of a block it decodes: in pairs.
template <class Isa, int kDepth, int kRows, int kChains, class Source>
MF_INLINE void add_halves(const Source& source, int64_t begin, int64_t end, const int8_t* const* x,
                          typename Isa::Ints* sums) {
  if (Source::kPacked && (begin | end) % 2 == 0) {
    for (int64_t block = begin / 2; block < end / 2; ++block) {
      add_half<Isa, kDepth, kRows, kChains>(source, 2 * block, x, sums);
      add_half<Isa, kDepth, kRows, kChains>(source, 2 * block + 1, x, sums);
    }
  } else {
    for (int64_t h = begin; h < end; ++h) add_half<Isa, kDepth, kRows, kChains>(source, h, x, sums);
  }
}

template <class Isa, int kDepth, int kRows, class Source>
void tile(const LinearArgs& a, const Panel& panel, const Source& source, int64_t m) {
  const Plan& p = *a.plan;
  const int8_t* x[kRows];
  typename Isa::Floats y[kRows];
  for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const int8_t*>(a.x.digits) + (m + r) * p.k_padded;
    y[r] = Isa::splat(0.0f);
  }
  const int64_t halves = p.fold_padded / 16, a_groups = activation_groups(p);
  const int64_t w_per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  const int64_t a_per_scale = p.activation.granularity == kGroup ? p.activation.group_size / p.fold : p.folds;
  const auto unit = Isa::splat(std::ldexp(1.0f, p.unit));
  for (int64_t f = 0; f < p.folds; ++f) {
    constexpr int kChains = Isa::kHasDot && kRows <= 2 ? 2 : 1;
    typename Isa::Ints sums[kRows * kChains];
    for (int r = 0; r < kRows * kChains; ++r) sums[r] = Isa::splat_int(0);
    add_halves<Isa, kDepth, kRows, kChains>(source, f * halves, (f + 1) * halves, x, sums);
    if constexpr (kChains == 2) {
      for (int r = 0; r < kRows; ++r) sums[r] = Isa::add_int(sums[r], sums[kRows + r]);
    }
    const int64_t w_group = f / w_per_scale;
    typename Isa::Ints correction = Isa::splat_int(p.offset);
    if (p.weight.has_zero_point) {
      alignas(64) float zero_points[kPanel];
      zero_point_values(p, panel, w_group, zero_points);
      correction = Isa::sub_int(correction, Isa::to_int(Isa::load_floats(zero_points)));
    }
    const auto w_scale = load_scales<Isa>(p.weight, panel.scales, w_group);
    for (int r = 0; r < kRows; ++r) {
      const auto fix = Isa::mul_int(correction, Isa::splat_int(a.x.sums[(m + r) * p.folds + f]));
      const auto value = Isa::mul(Isa::to_float(Isa::add_int(sums[r], fix)), unit);
      auto scale = w_scale;
      if (p.activation.granularity == kGroup)
        scale = Isa::mul(scale, Isa::splat(a.x.scales[(m + r) * a_groups + f / a_per_scale]));
      y[r] = Isa::add(y[r], Isa::mul(value, scale));
    }
  }
  for (int r = 0; r < kRows; ++r) finish<Isa>(a, panel, m + r, y[r]);
}

// All rows from m on, in tiles of kRows and what is left in smaller ones.
template <class Isa, int kDepth, int kRows, class Source>
void tiles(const LinearArgs& a, const Panel& panel, const Source& source, int64_t m) {
  if constexpr (kRows > 0) {
    for (; m + kRows <= a.m; m += kRows) tile<Isa, kDepth, kRows>(a, panel, source, m);
    tiles<Isa, kDepth, kRows / 2>(a, panel, source, m);
  }
}

template <class Isa, int kBits, bool kTable, int kDepth>
void linear_int8_panels(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const bool fused = a.m <= 2 * Isa::kFusedRows;  // few rows: decode in registers, again for each tile
  Scratch decoded(fused ? 0 : l.blocks * 8 * kRowBytes);
  for (int64_t i = begin; i < end; ++i) {
    const Panel panel(p, l, a.weight, i);
    const PackedDigits<Isa, kBits, kTable> source(panel.codes, digits);
    if constexpr (Isa::kFusedRows > 0) {
      if (fused) {
        tiles<Isa, kDepth, Isa::kFusedRows>(a, panel, source, 0);
        continue;
      }
    }
    for (int64_t h = 0; h < 2 * l.blocks; ++h) {
      for_quads([&](auto q) __attribute__((always_inline)) {
        Isa::store(decoded.data + (4 * h + q) * kRowBytes, source.template quad<q>(h));
      });
    }
    tiles<Isa, kDepth, Isa::kRows>(a, panel, DecodedDigits<Isa>{decoded.data}, 0);
  }
}

template <class Isa, int kBits>
void linear_int8_bits(const LinearArgs& a, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  uint8_t digits[256];
  bool is_table = false;
  for (int code = 0; code < (1 << kBits); ++code) {
    digits[code] = uint8_t(p.weight.grid[code ^ p.weight.code_flip] - p.offset);
    is_table |= digits[code] != code;
  }
  const int depth = Isa::kHasDot ? 1 : p.depth >= 4 ? 4 : p.depth >= 2 ? 2 : p.depth;
  auto run = [&](auto table, auto d) { linear_int8_panels<Isa, kBits, table, d>(a, digits, begin, end); };
  auto with_depth = [&](auto table) {
    if constexpr (Isa::kHasDot) return run(table, std::integral_constant<int, 1>());
    switch (depth) {
      case 4: return run(table, std::integral_constant<int, 4>());
      case 2: return run(table, std::integral_constant<int, 2>());
      case 1: return run(table, std::integral_constant<int, 1>());
      default: return run(table, std::integral_constant<int, 0>());
    }
  };
  is_table ? with_depth(std::true_type()) : with_depth(std::false_type());
}

template <class Isa>
void linear_int8(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->weight.bits) {
    case 1: return linear_int8_bits<Isa, 1>(a, begin, end);
    case 2: return linear_int8_bits<Isa, 2>(a, begin, end);
    case 3: return linear_int8_bits<Isa, 3>(a, begin, end);
    case 4: return linear_int8_bits<Isa, 4>(a, begin, end);
    case 5: return linear_int8_bits<Isa, 5>(a, begin, end);
    case 6: return linear_int8_bits<Isa, 6>(a, begin, end);
    case 7: return linear_int8_bits<Isa, 7>(a, begin, end);
    default: return linear_int8_bits<Isa, 8>(a, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
