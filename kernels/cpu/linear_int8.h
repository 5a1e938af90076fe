// y = x @ w.T with weights and activations as 8-bit digits (carrier kInt8).
//
// A weight is held as grid - offset, 0..255; the sum of products is corrected by (offset - zero point) * sum of activations.
// The dot product instruction sums four u8 x s8 products in int32. Without it pairs of products are summed in int16, as many
// as fit by the plan's proof, then widened (vpmaddubsw, vpmaddwd). Sums that start with the correction are those of grid
// values, which are smaller: twice as many fit, whatever wraps on the way (kModular), and twice as many again where the weights
// at hand leave room (guarded). Where not even one pair fits, |w| times the activation with w's sign does (vpsignb; four pairs of
// it where norms of both leave room), or most activations are small (linear_clamped.h); and if the activations hold -128, digits
// are split into nibbles.
#pragma once

#include "bytes.h"
#include "linear_clamped.h"

namespace minifloat {
namespace {

// kQuads quads (4: a half block, 8: a block) from half block `half` on, of kPanels panels, for kRows rows of activations. Few
// rows leave dot products waiting for each other's sums: then a second chain of sums (rows kRows and up) takes every other
// product. `windows` are those of `half`, see TileCall.
template <class Isa, Method kMethod, int kPanels, int kRows, int kQuads, int kChains, class Source, class Sums>
MF_INLINE void add_span(const Source* sources, int64_t half, const int8_t* const* x, const int32_t* windows, int64_t m,
                        Sums& sums) {
  using Bytes = typename Isa::Bytes;
  const int8_t* at[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) at[r] = x[r] + 16 * half;
  if constexpr (kMethod.kind == Method::kDot) {
    static_assert(kPanels == 1 || kChains == 1);
    for_count<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE {
        if constexpr (kPanels > 1) sources[i].template fetch<q>(half);
        const Bytes w = sources[i].template quad<q % 4>(half + q / 4);
        constexpr int kTo = (kChains == 2 && q % 2 ? kRows : 0) + i * kRows;
        MF_UNROLL for (int r = 0; r < kRows; ++r)
          sums.set(kTo + r, Isa::dot(sums.get(kTo + r), w, Isa::splat4(at[r] + 4 * q)));
      });
    });
  } else if constexpr (kMethod.kind == Method::kNibbles) {
    typename Isa::Shorts low[kPanels * kRows], high[kPanels * kRows];
    for_count<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE {
        const Bytes w = sources[i].template quad<q % 4>(half + q / 4);
        const Bytes w_low = Isa::template field<0, 0, 4>(w), w_high = Isa::template field<4, 0, 4>(w);
        MF_UNROLL for (int r = 0; r < kRows; ++r) {
          const Bytes a = Isa::splat4(at[r] + 4 * q);
          const int t = i * kRows + r;
          low[t] = q % 4 == 0 ? Isa::pair_dot(w_low, a) : Isa::add16(low[t], Isa::pair_dot(w_low, a));
          high[t] = q % 4 == 0 ? Isa::pair_dot(w_high, a) : Isa::add16(high[t], Isa::pair_dot(w_high, a));
          if constexpr (q % 4 == 3)
            sums.set(t, Isa::widen_add(Isa::widen_add(sums.get(t), low[t], 1), high[t], 16));
        }
      });
    });
  } else if constexpr (kMethod.kind == Method::kTwoDigits) {
    for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE {
      typename Isa::Shorts low[kRows], high[kRows];
      for_count<kQuads>([&](auto q) MF_ALWAYS_INLINE {
        const auto w = sources[i].template two_digits<q % 4>(half + q / 4);
        MF_UNROLL for (int r = 0; r < kRows; ++r) {
          const Bytes a = Isa::sign8(Isa::splat4(at[r] + 4 * q), w.sign);
          const int t = i * kRows + r;
          low[r] = q % Source::kLowDepth == 0 ? Isa::pair_dot(w.low, a) : Isa::add16(low[r], Isa::pair_dot(w.low, a));
          if constexpr ((q + 1) % Source::kLowDepth == 0 || q + 1 == kQuads) sums.set(t, Isa::widen_add(sums.get(t), low[r], 1));
          high[r] = q % Source::kHighDepth == 0 ? Isa::pair_dot(w.high, a) : Isa::add16(high[r], Isa::pair_dot(w.high, a));
          if constexpr ((q + 1) % Source::kHighDepth == 0 || q + 1 == kQuads)
            sums.set(t, Isa::widen_add(sums.get(t), high[r], Source::kHighWorth));
        }
      });
    });
  } else {
    constexpr int kDepth = kMethod.depth < kQuads ? kMethod.depth : kQuads;
    constexpr bool kSigned = kMethod.kind == Method::kSigned;
    static_assert(kMethod.kind != Method::kModular || kDepth == kMethod.depth);
    typename Isa::Shorts partial[kPanels * kRows];
    const auto multiply_add = [&](auto q, auto i, int r, auto w) MF_ALWAYS_INLINE {
      Bytes a = Isa::splat4(at[r] + 4 * q);
      typename Isa::Shorts product;
      if constexpr (kSigned) {
        product = Isa::pair_dot(w.magnitude, Isa::sign8(a, w.sign));
      } else {
        product = Isa::pair_dot(w, a);
      }
      const int t = i * kRows + r;
      if constexpr (q % kDepth != 0) {
        partial[t] = Isa::add16(partial[t], product);
      } else if constexpr (kMethod.kind == Method::kModular) {
        partial[t] = Isa::add16(Isa::splat4(reinterpret_cast<const int8_t*>(windows + q / kDepth * m + r)), product);
      } else {
        partial[t] = product;
      }
      if constexpr ((q + 1) % kDepth == 0) sums.set(t, Isa::widen_add(sums.get(t), partial[t], 1));
    };
    const auto weights = [&](auto q, auto i) MF_ALWAYS_INLINE {
      if constexpr (kSigned) return sources[i].template signed_quad<q % 4>(half + q / 4);
      else return sources[i].template quad<q % 4>(half + q / 4);
    };
    if constexpr (kDepth == 2) {  // a row's int16 sums end before the next row's begin
      for_count<kQuads / 2>([&](auto window) MF_ALWAYS_INLINE {
        for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE {
          constexpr std::integral_constant<int, 2 * window> first;
          constexpr std::integral_constant<int, 2 * window + 1> second;
          const auto w0 = weights(first, i), w1 = weights(second, i);
          MF_UNROLL for (int r = 0; r < kRows; ++r) {
            multiply_add(first, i, r, w0);
            multiply_add(second, i, r, w1);
          }
        });
      });
    } else {
      for_count<kQuads>([&](auto q) MF_ALWAYS_INLINE {
        for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE {
          if constexpr (kPanels > 1) sources[i].template fetch<q>(half);
          const auto w = weights(q, i);
          MF_UNROLL for (int r = 0; r < kRows; ++r) multiply_add(q, i, r, w);
        });
      });
    }
  }
}

// What all tiles of a call share.
struct TileCall {
  const LinearArgs* args;
  std::vector<int32_t> starts;  // (m, folds): offset * sum of the activations; 0 with zero points
  std::vector<int32_t> windows; // kModular, (k_padded / 4 / depth, m): two int16 that pairs of products are added to
  Scratch sums;                 // for MemorySums
  std::vector<uint8_t> large;   // guarded kSigned, of blocks: whether an activation's norm is too large (byte_limits)
};

// Of the blocks of k's, whether one of m rows has a norm above byte_limits there.
inline std::vector<uint8_t> blocks_of_large_norm(const Plan& p, const int8_t* rows, int64_t m) {
  std::vector<uint8_t> large(p.k_padded / kBlock);
  const int32_t norm = byte_limits(p).activation_norm;
  for (const int8_t* row = rows; row < rows + m * p.k_padded; row += p.k_padded)
    for (size_t block = 0; block < large.size(); ++block)
      large[block] |= !squares_within(reinterpret_cast<const uint8_t*>(row + block * kBlock), 0, norm * norm);
  return large;
}

// add_span, where the method is guarded: in a marked block every pair of products is widened.
template <class Isa, Method kMethod, int kPanels, int kRows, int kQuads, int kChains, class Source, class Sums>
MF_INLINE void add_guarded(const TileCall& call, const Panel& panel, const Source* sources, int64_t half, const int8_t* const* x,
                           const int32_t* windows, Sums& sums) {
  constexpr Method kPairs{Method::kSigned, 1};
  const int64_t m = call.args->m;
  if constexpr (kMethod.guarded) {
    static_assert(kPanels == 1 && kMethod.depth == kGuardedDepth);
    if constexpr (kMethod.kind == Method::kSigned) {
      if (__builtin_expect(panel.marks[half / 2] | call.large[half / 2], 0))
        return add_span<Isa, kPairs, 1, kRows, kQuads, kChains>(sources, half, x, windows, m, sums);
    } else if (__builtin_expect(panel.marks[half / 2], 0)) {
      const GridOf<Isa, Source> grid{*sources, Isa::splat_byte(call.args->plan->offset)};
      return add_span<Isa, kPairs, 1, kRows, kQuads, kChains>(&grid, half, x, windows, m, sums);
    }
  }
  add_span<Isa, kMethod, kPanels, kRows, kQuads, kChains>(sources, half, x, windows, m, sums);
}

// Whether sums are of weights minus the offset.
constexpr bool sums_have_offset(Method method) {
  return method.kind != Method::kSigned && method.kind != Method::kModular && method.kind != Method::kTwoDigits;
}

// Row m of the windows: for kBytes activations after the other, offset * (sum of those at 0 and 1 of each quad), and of those at
// 2 and 3, modulo 2**16.
template <int kBytes>
void start_windows(const LinearArgs& a, int64_t m, std::vector<int16_t>& pairs, int32_t* out) {
  const Plan& p = *a.plan;
  pairs.resize(p.k_padded / 2);
  sums_of_pairs(static_cast<const int8_t*>(a.x.digits) + m * p.k_padded, p.k_padded / 2, pairs.data());
  const int16_t* at = pairs.data();
  for (int64_t i = 0; i < p.k_padded / kBytes; ++i) {
    int low = 0, high = 0;
    for (int j = 0; j < kBytes; j += 4, at += 2) {
      low += at[0];
      high += at[1];
    }
    out[i * a.m] = int32_t(uint32_t(uint16_t(p.offset * low)) | uint32_t(p.offset * high) << 16);
  }
}

// kRows rows of activations from m on, for kPanels panels that are read side by side.
template <class Isa, Method kMethod, int kPanels, int kRows, class AnyPanel, class Source>
void tile(const TileCall& call, const AnyPanel* panels, const Source* sources, int64_t m, Ahead ahead) {
  const LinearArgs& a = *call.args;
  const Plan& p = *a.plan;
  constexpr int kChains = kPanels == 1 && kMethod.kind == Method::kDot && kRows <= 2 ? 2 : 1;
  constexpr bool kInMemory =
      kMethod.kind == Method::kOffset && kPanels * kRows > 2 && kMethod.depth >= (kPanels > 1 ? 4 : 8);
  using Sums = std::conditional_t<kInMemory, MemorySums<Isa>, RegisterSums<Isa, kPanels * kRows * kChains>>;
  const int8_t* x[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) x[r] = static_cast<const int8_t*>(a.x.digits) + (m + r) * p.k_padded;
  TileOutputs<Isa, kPanels, kRows, sums_have_offset(kMethod), AnyPanel> outputs(a, panels, m);
  const int64_t halves = p.fold_padded / 16;
  const int32_t* starts = call.starts.data() + m * p.folds;
  const int32_t* windows = call.windows.data() + m;
  for (int64_t f = 0; f < p.folds; ++f) {
    if constexpr (is_one_block(kMethod)) {
      RegisterSums<Isa, kPanels * kRows> sums(nullptr);
      MF_UNROLL for (int r = 0; r < kPanels * kRows; ++r) sums.set(r, Isa::splat_int(0));
      add_span<Isa, kMethod, kPanels, kRows, 8, 1>(sources, 2 * f, x, windows, a.m, sums);
      for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE { outputs.add_fold(f, i, sums, i * kRows); });
      windows += a.m;
      ahead.fetch();
    } else {
      Sums sums(call.sums.data);
      MF_UNROLL for (int i = 0; i < kPanels * kRows * kChains; ++i) {
        const bool starts_here = kMethod.kind != Method::kModular && i < kPanels * kRows;
        sums.set(i, Isa::splat_int(starts_here ? starts[i % kRows * p.folds + f] : 0));
      }
      if (halves % 2 == 0) {
        for (int64_t block = f * halves / 2; block < (f + 1) * halves / 2; ++block) {
          add_guarded<Isa, kMethod, kPanels, kRows, 8, kChains>(call, *panels, sources, 2 * block, x, windows, sums);
          if constexpr (kMethod.kind == Method::kModular) windows += 8 / kMethod.depth * a.m;
          ahead.fetch();
        }
      } else {
        for (int64_t h = f * halves; h < (f + 1) * halves; ++h) {
          add_guarded<Isa, kMethod, kPanels, kRows, 4, kChains>(call, *panels, sources, h, x, windows, sums);
          if constexpr (kMethod.kind == Method::kModular) windows += 4 / kMethod.depth * a.m;
        }
      }
      MF_UNROLL for (int r = 0; kChains == 2 && r < kRows; ++r) sums.set(r, Isa::add_int(sums.get(r), sums.get(kRows + r)));
      for_count<kPanels>([&](auto i) MF_ALWAYS_INLINE { outputs.add_fold(f, i, sums, i * kRows); });
    }
    outputs.end_fold();
  }
  outputs.finish_all();
}

// All rows from m on, in tiles that decode: the first one fetches kAheadBytes ahead.
template <class Isa, Method kMethod, int kRows, class Source>
void fused_tiles(const TileCall& call, const ScaledPanel<Isa>& panel, const Source& source, int64_t m, int64_t block_bytes) {
  if constexpr (kRows > 0) {
    for (; m + kRows <= call.args->m; m += kRows)
      tile<Isa, kMethod, 1, kRows>(call, &panel, &source, m, {panel.codes + kAheadBytes, m == 0 ? block_bytes : 0});
    fused_tiles<Isa, kMethod, kRows / 2>(call, panel, source, m, block_bytes);
  }
}

// As many as the registers hold: int16 sums that are deep stay there alone, others share them with the int32 sums.
template <class Isa, Method kMethod>
constexpr int rows_per_tile() {
  return kMethod.kind != Method::kDot && kMethod.depth == 4 ? 3 : Isa::kRows;
}

template <class Isa, int kBits, Lookup kLookup, Method kMethod>
void linear_int8_panels(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  constexpr bool kSigned = kMethod.kind == Method::kSigned, kOffsetSums = sums_have_offset(kMethod);
  constexpr bool kSelects = kLookup == Lookup::kTable && kBits >= 5 && Isa::kSelectsTables;
  constexpr int kFusedRows = kSelects ? Isa::kSelectRows : Isa::kFusedRows;
  constexpr int kStreams = Isa::kStreams;
  TileCall call{&a, {}, {}, Scratch(kRowBytes * std::max(Isa::kRows, std::max(kFusedRows, kStreams))), {}};
  std::vector<float> scales(l.groups * kPanel);
  const int64_t panel_scale_bytes = l.groups * kPanel * scale_bytes(p.weight);
  call.starts.resize(a.m * p.folds);
  if constexpr (kMethod.kind == Method::kModular) {
    call.windows.resize(p.k_padded / (4 * kMethod.depth) * a.m);
    std::vector<int16_t> pairs;
    for (int64_t m = 0; m < a.m; ++m) start_windows<4 * kMethod.depth>(a, m, pairs, call.windows.data() + m);
  }
  if constexpr (kSigned && kMethod.guarded) call.large = blocks_of_large_norm(p, static_cast<const int8_t*>(a.x.digits), a.m);
  if (!p.weight.has_zero_point && kOffsetSums) {
    for (int64_t i = 0; i < a.m * p.folds; ++i) call.starts[i] = p.offset * a.x.sums[i];
  }
  using Source = PackedDigits<Isa, kBits, kLookup, kSigned>;
  const auto source_of = [&](const Panel& panel) { return Source(panel.codes, digits, p.offset); };
  const bool fused = a.choice.decode == Decode::kRegisters;
  constexpr Method kBeside = kMethod.guarded ? Method{Method::kSigned, 1} : kMethod;  // at M = 1: DRAM is what it waits for
  if constexpr (kFusedRows > 0 && kStreams > 1 && !for_panels_only(kMethod, kLookup)) {
    const auto side_by_side = [&](auto plain_powers) {
      const int64_t apart = (end - begin) / kStreams;
      for (int64_t i = begin; i < begin + apart; ++i) {
        for_numbers<kStreams>([&](auto... stream) {
          const UnscaledPanel<Isa, plain_powers> panels[] = {{p, l, a.weight, i + stream * apart}...};
          const Source sources[] = {source_of(panels[stream])...};
          tile<Isa, kBeside, kStreams, 1>(call, panels, sources, 0, {nullptr, 0});
        });
      }
      begin += kStreams * apart;
    };
    if (fused && a.m == 1) {  // in folds of 128 (int4) a compiled-in kind of scale gained nothing
      const bool powers = is_one_block(kMethod) && p.weight.scale_kind == kPowerOfTwo && has_plain_folds(p);
      if (powers) side_by_side(std::bool_constant<is_one_block(kMethod)>());
      else side_by_side(std::false_type());
    }
  }
  constexpr int kRows = rows_per_tile<Isa, kMethod>();
  // The first tile of a panel decodes it for all: not where selecting from tables takes the registers.
  constexpr bool kDecodesOnTheWay = kLookup == Lookup::kNone || kBits <= 4 || !Isa::kSelectsTables;
  Scratch decoded(fused ? 0 : l.blocks * 8 * kRowBytes);
  for (int64_t i = begin; i < end; ++i) {
    const ScaledPanel<Isa> panel(p, l, a.weight, i, scales.data());
    const Source source = source_of(panel);
    for (int64_t b = 0; b < panel_scale_bytes; b += kRowBytes) __builtin_prefetch(panel.scales + panel_scale_bytes + b, 0, 2);
    if constexpr (kFusedRows > 0 && !for_panels_only(kMethod, kLookup)) {
      if (fused) {
        fused_tiles<Isa, kMethod, kFusedRows>(call, panel, source, 0, kBits * kRowBytes);
        continue;
      }
    }
    const DecodedDigits<Isa> from{decoded.data};
    const auto rest_of_tiles = [&](int64_t m, const uint8_t* next, int64_t next_bytes) {
      for_tiles<kRows>(a.m, m, l.blocks, next, next_bytes, [&](auto rows, int64_t m, Ahead ahead) {
        tile<Isa, kMethod, 1, rows>(call, &panel, &from, m, ahead);
      });
    };
    const uint8_t* next = panel.codes + l.panel_bytes;
    const int64_t next_bytes = i + 1 < end ? l.panel_bytes : 0;
    if constexpr (kDecodesOnTheWay) {
      if (a.m >= kRows) {
        const StoredDigits<Isa, Source> on_the_way{source, decoded.data};
        const int64_t step = ahead_step(next_bytes, ceil_div(a.m, kRows) * l.blocks);
        tile<Isa, kMethod, 1, kRows>(call, &panel, &on_the_way, 0, {next, step});
        rest_of_tiles(kRows, next + step * l.blocks, std::max<int64_t>(next_bytes - step * l.blocks, 0));
        continue;
      }
    }
    for (int64_t b = 0; b < l.blocks; ++b) {
      for_count<8>([&](auto q) MF_ALWAYS_INLINE {
        Isa::store(decoded.data + (8 * b + q) * kRowBytes, source.template quad<q % 4>(2 * b + q / 4));
      });
    }
    rest_of_tiles(0, next, next_bytes);
  }
}

// Runs the line of kMethods that was chosen, of those compiled for kBits and kLookup.
template <class Isa, int kBits, Lookup kLookup, size_t kLine = 0>
void linear_int8_method(const LinearArgs& a, uint8_t* digits, int64_t begin, int64_t end) {
  if constexpr (kLine < std::size(kMethods)) {
    constexpr MethodLine line = kMethods[kLine];
    if constexpr (line.compiled(kBits, kLookup) && Isa::kHasDot == (line.method.kind == Method::kDot)) {
      if (std::string_view(a.choice.method) == line.name) {
        if (kLookup != Lookup::kNone && (line.method.kind == Method::kSigned || line.method.kind == Method::kClamped)) {
          for (int code = 0; code < (1 << kBits); ++code) digits[code] = uint8_t(digits[code] + a.plan->offset);
        }
        if constexpr (line.method.kind == Method::kClamped) return linear_clamped<Isa, kBits, kLookup>(a, digits, begin, end);
        else return linear_int8_panels<Isa, kBits, kLookup, line.method>(a, digits, begin, end);
      }
    }
    linear_int8_method<Isa, kBits, kLookup, kLine + 1>(a, digits, begin, end);
  }
}

template <class Isa, int kBits>
void linear_int8_bits(const LinearArgs& a, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  uint8_t digits[256] = {};
  if (a.choice.lookup == Lookup::kNone) return linear_int8_method<Isa, kBits, Lookup::kNone>(a, digits, begin, end);
  for (int code = 0; code < (1 << kBits); ++code)
    digits[code] = uint8_t(p.weight.grid[code ^ p.weight.code_flip] - p.offset);
  if constexpr (Isa::kSelectsTables && kBits == 6) {
    if (a.choice.lookup == Lookup::kMagnitudes) return linear_int8_method<Isa, kBits, Lookup::kMagnitudes>(a, digits, begin, end);
  }
  linear_int8_method<Isa, kBits, Lookup::kTable>(a, digits, begin, end);
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
