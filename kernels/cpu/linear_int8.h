// y = x @ w.T with weights and activations as 8-bit digits (carrier kInt8).
//
// A weight is held as grid - offset, 0..255; the sum of products is corrected by (offset - zero point) * sum of activations.
// The dot product instruction sums four u8 x s8 products in int32. Without it pairs of products are summed in int16, as many
// as fit by the plan's proof, then widened (vpmaddubsw, vpmaddwd). Sums that start with the correction are those of grid
// values, which are smaller: twice as many fit, whatever wraps on the way (kModular). Where not even one pair fits, |w| times
// the activation with w's sign does (vpsignb), and if the activations hold -128, digits are split into nibbles.
#pragma once

#include "choice.h"
#include "decode.h"

namespace minifloat {
namespace {

// The sums of a tile: in registers, or in memory where the int16 sums take the registers.
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

// kQuads quads (4: a half block, 8: a block) from half block `half` on, for kRows rows of activations. Few rows leave dot
// products waiting for each other's sums: then a second chain of sums (rows kRows and up) takes every other product. `windows`
// are those of `half`, see TileCall.
template <class Isa, Method kMethod, int kRows, int kQuads, int kChains, class Source, class Sums>
MF_INLINE void add_span(const Source& source, int64_t half, const int8_t* const* x, const int32_t* windows, int64_t m,
                        Sums& sums) {
  using Bytes = typename Isa::Bytes;
  const int8_t* at[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) at[r] = x[r] + 16 * half;
  if constexpr (kMethod.kind == Method::kDot) {
    for_quads<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      const Bytes w = source.template quad<q % 4>(half + q / 4);
      constexpr int kTo = kChains == 2 && q % 2 ? kRows : 0;
      MF_UNROLL for (int r = 0; r < kRows; ++r)
        sums.set(kTo + r, Isa::dot(sums.get(kTo + r), w, Isa::splat4(at[r] + 4 * q)));
    });
  } else if constexpr (kMethod.kind == Method::kNibbles) {
    typename Isa::Shorts low[kRows], high[kRows];
    for_quads<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      const Bytes w = source.template quad<q % 4>(half + q / 4);
      const Bytes w_low = Isa::template field<0, 0, 4>(w), w_high = Isa::template field<4, 0, 4>(w);
      MF_UNROLL for (int r = 0; r < kRows; ++r) {
        const Bytes a = Isa::splat4(at[r] + 4 * q);
        low[r] = q % 4 == 0 ? Isa::pair_dot(w_low, a) : Isa::add16(low[r], Isa::pair_dot(w_low, a));
        high[r] = q % 4 == 0 ? Isa::pair_dot(w_high, a) : Isa::add16(high[r], Isa::pair_dot(w_high, a));
        if constexpr (q % 4 == 3)
          sums.set(r, Isa::widen_add(Isa::widen_add(sums.get(r), low[r], 1), high[r], 16));
      }
    });
  } else {
    constexpr int kDepth = kMethod.depth < kQuads ? kMethod.depth : kQuads;
    static_assert(kMethod.kind != Method::kModular || kDepth == kMethod.depth);
    typename Isa::Shorts partial[kRows];
    for_quads<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      Bytes w = source.template quad<q % 4>(half + q / 4), sign = w;
      if constexpr (kMethod.kind == Method::kSigned) w = Isa::abs8(w);
      MF_UNROLL for (int r = 0; r < kRows; ++r) {
        Bytes a = Isa::splat4(at[r] + 4 * q);
        if constexpr (kMethod.kind == Method::kSigned) a = Isa::sign8(a, sign);
        const auto product = Isa::pair_dot(w, a);
        if constexpr (q % kDepth != 0) {
          partial[r] = Isa::add16(partial[r], product);
        } else if constexpr (kMethod.kind == Method::kModular) {
          partial[r] = Isa::add16(Isa::splat4(reinterpret_cast<const int8_t*>(windows + q / kDepth * m + r)), product);
        } else {
          partial[r] = product;
        }
        if constexpr ((q + 1) % kDepth == 0) sums.set(r, Isa::widen_add(sums.get(r), partial[r], 1));
      }
    });
  }
}

// What all tiles of a call share.
struct TileCall {
  const LinearArgs* args;
  std::vector<int32_t> starts;  // (m, folds): offset * sum of the activations; 0 with zero points
  std::vector<int32_t> windows; // kModular, (k_padded / 4 / depth, m): two int16 that pairs of products are added to
  Scratch sums;                 // for MemorySums
  std::vector<float> scales;    // of the current panel: (groups, 16)
  float unit;                   // what a sum is still to be multiplied by before its scale
};

// The panel's scales as floats, times 2**unit where that is exact and the scale is not to be multiplied by another one first.
template <class Isa>
void widen_scales(const Plan& p, const Panel& panel, int64_t groups, TileCall& call) {
  const float unit = std::ldexp(1.0f, p.unit);
  bool foldable = p.activation.granularity != kGroup;
  for (int64_t g = 0; g < groups; ++g) {
    auto scale = load_scales<Isa>(p.weight, panel.scales, g);
    if (foldable) scale = Isa::mul(scale, Isa::splat(unit));
    foldable = foldable && Isa::all_normal(scale);
    Isa::store_floats(call.scales.data() + g * kPanel, scale);
  }
  call.unit = foldable ? 1.0f : unit;
  if (foldable || p.activation.granularity == kGroup) return;
  for (int64_t g = 0; g < groups; ++g)
    Isa::store_floats(call.scales.data() + g * kPanel, load_scales<Isa>(p.weight, panel.scales, g));
}

// Whether sums are of weights minus the offset.
constexpr bool sums_have_offset(Method method) { return method.kind != Method::kSigned && method.kind != Method::kModular; }

// Row m of the windows: for kBytes activations after the other, offset * (sum of those at 0 and 1 of each quad), and of those at
// 2 and 3, modulo 2**16.
template <int kBytes>
void start_windows(const LinearArgs& a, int64_t m, int32_t* out) {
  const Plan& p = *a.plan;
  const int8_t* x = static_cast<const int8_t*>(a.x.digits) + m * p.k_padded;
  for (int64_t i = 0; i < p.k_padded / kBytes; ++i, x += kBytes) {
    int low = 0, high = 0;
    for (int j = 0; j < kBytes; j += 4) {
      low += x[j] + x[j + 1];
      high += x[j + 2] + x[j + 3];
    }
    out[i * a.m] = int32_t(uint32_t(uint16_t(p.offset * low)) | uint32_t(p.offset * high) << 16);
  }
}

// Bytes to bring into the cache while a tile is computed, `step` (a multiple of a line) per block of K.
struct Ahead {
  const uint8_t* at;
  int64_t step;
};

template <class Isa, Method kMethod, int kRows, class Source>
void tile(const TileCall& call, const Panel& panel, const Source& source, int64_t m, Ahead ahead) {
  const LinearArgs& a = *call.args;
  const Plan& p = *a.plan;
  const int8_t* x[kRows];
  typename Isa::Floats y[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const int8_t*>(a.x.digits) + (m + r) * p.k_padded;
    y[r] = Isa::splat(0.0f);
  }
  constexpr int kChains = kMethod.kind == Method::kDot && kRows <= 2 ? 2 : 1;
  constexpr bool kInMemory = kMethod.depth == 8 && kRows > 2;
  using Sums = std::conditional_t<kInMemory, MemorySums<Isa>, RegisterSums<Isa, kRows * kChains>>;
  const int64_t halves = p.fold_padded / 16, a_groups = activation_groups(p);
  const int64_t w_per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  const int64_t a_per_scale = p.activation.granularity == kGroup ? p.activation.group_size / p.fold : p.folds;
  const int32_t* starts = call.starts.data() + m * p.folds;
  const int32_t* windows = call.windows.data() + m;
  const int64_t folds = p.folds;
  const bool plain = call.unit == 1.0f && !p.weight.has_zero_point && p.activation.granularity != kGroup;
  for (int64_t f = 0; f < folds; ++f) {
    Sums sums(call.sums.data);
    MF_UNROLL for (int r = 0; r < kRows * kChains; ++r)
      sums.set(r, Isa::splat_int(r < kRows ? starts[r * folds + f] : 0));
    if (halves % 2 == 0) {
      for (int64_t block = f * halves / 2; block < (f + 1) * halves / 2; ++block) {
        add_span<Isa, kMethod, kRows, 8, kChains>(source, 2 * block, x, windows, a.m, sums);
        if constexpr (kMethod.kind == Method::kModular) windows += 8 / kMethod.depth * a.m;
        for (int64_t b = 0; b < ahead.step; b += kRowBytes) __builtin_prefetch(ahead.at + b, 0, 2);
        ahead.at += ahead.step;
      }
    } else {
      for (int64_t h = f * halves; h < (f + 1) * halves; ++h) {
        add_span<Isa, kMethod, kRows, 4, kChains>(source, h, x, windows, a.m, sums);
        if constexpr (kMethod.kind == Method::kModular) windows += 4 / kMethod.depth * a.m;
      }
    }
    const int64_t w_group = f / w_per_scale;
    const auto w_scale = Isa::load_floats(call.scales.data() + w_group * kPanel);
    MF_UNROLL for (int r = 0; kChains == 2 && r < kRows; ++r) sums.set(r, Isa::add_int(sums.get(r), sums.get(kRows + r)));
    if (!plain) {
      auto correction = Isa::splat_int(0);
      if (p.weight.has_zero_point) {
        alignas(64) float zero_points[kPanel];
        zero_point_values(p, panel, w_group, zero_points);
        const int32_t offset = sums_have_offset(kMethod) ? p.offset : 0;
        correction = Isa::sub_int(Isa::splat_int(offset), Isa::to_int(Isa::load_floats(zero_points)));
      }
      for (int r = 0; r < kRows; ++r) {
        const auto fix = Isa::mul_int(correction, Isa::splat_int(a.x.sums[(m + r) * p.folds + f]));
        const auto value = Isa::mul(Isa::to_float(Isa::add_int(sums.get(r), fix)), Isa::splat(call.unit));
        auto scale = w_scale;
        if (p.activation.granularity == kGroup)
          scale = Isa::mul(scale, Isa::splat(a.x.scales[(m + r) * a_groups + f / a_per_scale]));
        y[r] = Isa::add(y[r], Isa::mul(value, scale));
      }
      continue;
    }
    MF_UNROLL for (int r = 0; r < kRows; ++r) y[r] = Isa::add(y[r], Isa::mul(Isa::to_float(sums.get(r)), w_scale));
  }
  MF_UNROLL for (int r = 0; r < kRows; ++r) finish<Isa>(a, panel, m + r, y[r]);
}

// All rows from m on, in tiles of kRows and what is left in smaller ones. The first tiles fetch `next`, the panel to come.
template <class Isa, Method kMethod, int kRows, class Source>
void tiles(const TileCall& call, const Panel& panel, const Source& source, int64_t m, const uint8_t* next,
           int64_t next_bytes) {
  if constexpr (kRows > 0) {
    const Plan& p = *call.args->plan;
    const int64_t count = (call.args->m - m) / kRows, blocks = p.k_padded / kBlock;
    const int64_t step = count > 0 && blocks > 0 ? ceil_div(ceil_div(next_bytes, count * blocks), kRowBytes) * kRowBytes : 0;
    for (; m + kRows <= call.args->m; m += kRows) {
      tile<Isa, kMethod, kRows>(call, panel, source, m, {next, next_bytes > 0 ? step : 0});
      next += step * blocks;
      next_bytes -= step * blocks;
    }
    tiles<Isa, kMethod, kRows / 2>(call, panel, source, m, next, std::max<int64_t>(next_bytes, 0));
  }
}

// The same where tiles decode: the first one fetches kAheadBytes ahead.
template <class Isa, Method kMethod, int kRows, class Source>
void fused_tiles(const TileCall& call, const Panel& panel, const Source& source, int64_t m, int64_t block_bytes) {
  if constexpr (kRows > 0) {
    for (; m + kRows <= call.args->m; m += kRows)
      tile<Isa, kMethod, kRows>(call, panel, source, m,
                                {panel.codes + kAheadBytes, m == 0 ? block_bytes : 0});
    fused_tiles<Isa, kMethod, kRows / 2>(call, panel, source, m, block_bytes);
  }
}

// As many as the registers hold: int16 sums that are deep stay there alone, others share them with the int32 sums.
template <class Isa, Method kMethod>
constexpr int rows_per_tile() {
  if (kMethod.kind == Method::kDot || kMethod.kind == Method::kSigned || kMethod.depth == 8 || kMethod.depth == 1) return Isa::kRows;
  return 3;
}

template <class Isa, int kBits, bool kTable, Method kMethod>
void linear_int8_panels(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  constexpr bool kSigned = kMethod.kind == Method::kSigned, kOffsetSums = sums_have_offset(kMethod);
  TileCall call{&a, {}, {}, Scratch(kRowBytes * std::max(Isa::kRows, Isa::kFusedRows)), {}, 1.0f};
  call.scales.resize(l.groups * kPanel);
  const int64_t panel_scale_bytes = l.groups * kPanel * scale_bytes(p.weight);
  call.starts.resize(a.m * p.folds);
  if constexpr (kMethod.kind == Method::kModular) {
    call.windows.resize(p.k_padded / (4 * kMethod.depth) * a.m);
    for (int64_t m = 0; m < a.m; ++m) start_windows<4 * kMethod.depth>(a, m, call.windows.data() + m);
  }
  if (!p.weight.has_zero_point && kOffsetSums) {
    for (int64_t i = 0; i < a.m * p.folds; ++i) call.starts[i] = p.offset * a.x.sums[i];
  }
  constexpr int kFusedRows = kTable && kBits >= 5 && Isa::kSelectsTables ? Isa::kSelectRows : Isa::kFusedRows;
  const bool fused = a.choice.decode == Decode::kRegisters;
  Scratch decoded(fused ? 0 : l.blocks * 8 * kRowBytes);
  for (int64_t i = begin; i < end; ++i) {
    const Panel panel(p, l, a.weight, i);
    const PackedDigits<Isa, kBits, kTable, kSigned> source(panel.codes, digits, p.offset);
    widen_scales<Isa>(p, panel, l.groups, call);
    for (int64_t b = 0; b < panel_scale_bytes; b += kRowBytes) __builtin_prefetch(panel.scales + panel_scale_bytes + b, 0, 2);
    if constexpr (kFusedRows > 0 && kMethod.kind != Method::kModular) {
      if (fused) {
        fused_tiles<Isa, kMethod, kFusedRows>(call, panel, source, 0, kBits * kRowBytes);
        continue;
      }
    }
    for (int64_t b = 0; b < l.blocks; ++b) {
      for_quads<8>([&](auto q) MF_ALWAYS_INLINE {
        Isa::store(decoded.data + (8 * b + q) * kRowBytes, source.template quad<q % 4>(2 * b + q / 4));
      });
    }
    tiles<Isa, kMethod, rows_per_tile<Isa, kMethod>()>(call, panel, DecodedDigits<Isa>{decoded.data}, 0,
                                                       panel.codes + l.panel_bytes, i + 1 < end ? l.panel_bytes : 0);
  }
}

// Runs the line of kMethods that was chosen, of those compiled for kBits and kTable.
template <class Isa, int kBits, bool kTable, size_t kLine = 0>
void linear_int8_method(const LinearArgs& a, uint8_t* digits, int64_t begin, int64_t end) {
  if constexpr (kLine < std::size(kMethods)) {
    constexpr MethodLine line = kMethods[kLine];
    if constexpr (line.compiled(kBits, kTable) && Isa::kHasDot == (line.method.kind == Method::kDot)) {
      if (std::string_view(a.choice.method) == line.name) {
        if (line.method.kind == Method::kSigned) {
          for (int code = 0; code < (1 << kBits); ++code) digits[code] = uint8_t(digits[code] + a.plan->offset);
        }
        return linear_int8_panels<Isa, kBits, kTable, line.method>(a, digits, begin, end);
      }
    }
    linear_int8_method<Isa, kBits, kTable, kLine + 1>(a, digits, begin, end);
  }
}

template <class Isa, int kBits>
void linear_int8_bits(const LinearArgs& a, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  uint8_t digits[256];
  for (int code = 0; code < (1 << kBits); ++code)
    digits[code] = uint8_t(p.weight.grid[code ^ p.weight.code_flip] - p.offset);
  if (digits_by_table(p)) return linear_int8_method<Isa, kBits, true>(a, digits, begin, end);
  linear_int8_method<Isa, kBits, false>(a, digits, begin, end);
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
