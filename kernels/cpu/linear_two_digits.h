// y = x @ w.T for few rows, where grids exceed 8 bits (carrier kInt16) but |w| = low + high * kHighWorth, two digits of bytes that a
// table of 16 each holds (has_two_digits). The activation takes w's sign.
#pragma once

#include "linear_int8.h"

namespace minifloat {
namespace {

// Of four k's of 16 outputs: the digits of |w|, and bytes with w's sign that are not 0.
template <class Isa>
struct TwoDigits {
  typename Isa::Bytes low, high, sign;
};

// Of five bits: the low and the high four bits of |w|, by the code's low four bits.
template <class Isa, int kBits>
struct PackedTwoDigits {
  static_assert(kBits == 5);
  static constexpr int kHighWorth = 16, kLowDepth = 8, kHighDepth = 8;  // pairs of products per int16 sum
  const uint8_t* panel;
  typename Isa::template ByteTable<4> lows, highs;

  static constexpr int low(int magnitude, int) { return magnitude % kHighWorth; }
  static constexpr int high(int magnitude, int) { return magnitude / kHighWorth; }

  template <int kQuad>
  MF_INLINE TwoDigits<Isa> two_digits(int64_t half) const {
    const uint8_t* block = panel + (half >> 1) * kBits * kRowBytes;
    const auto index = low_bits<Isa, kBits, kQuad>(block, half & 1);
    const auto sign = top_bits<Isa, kBits, kQuad, 4>(block, half & 1);
    return {lows.lookup(index), highs.lookup(index), Isa::either(sign, Isa::splat_byte(1))};
  }
};

// Of six bits: the magnitudes of codes up to 15 are low digits, those of the others high ones.
template <class Isa>
struct PackedTwoDigits<Isa, 6> {
  static constexpr int kBits = 6, kHighWorth = 8, kLowDepth = 4, kHighDepth = 2;
  const uint8_t* panel;
  typename Isa::template ByteTable<4> lows, highs;

  static constexpr int low(int magnitude, int code) { return code < 16 ? magnitude : 0; }
  static constexpr int high(int magnitude, int code) { return code < 16 ? 0 : magnitude / kHighWorth; }

  template <int kQuad>
  MF_INLINE TwoDigits<Isa> two_digits(int64_t half) const {
    const uint8_t* block = panel + (half >> 1) * kBits * kRowBytes;
    const auto index = low_bits<Isa, kBits, kQuad>(block, half & 1);
    const auto is_high = top_bits<Isa, kBits, kQuad, 4>(block, half & 1);
    const auto zero = Isa::zero_bytes();
    return {Isa::select8(lows.lookup(index), zero, is_high), Isa::select8(zero, highs.lookup(index), is_high),
            top_bits<Isa, kBits, kQuad, 5, true>(block, half & 1)};
  }
};

template <class Isa, int kBits>
void linear_two_digits_bits(const LinearArgs& exchanged, int64_t begin, int64_t end) {
  using Source = PackedTwoDigits<Isa, kBits>;
  using Table = typename Isa::template ByteTable<4>;
  constexpr Method kMethod{Method::kTwoDigits, 1};
  constexpr int kStreams = 2, kRows = 4;  // four panels side by side were no quicker
  const Plan& p = *exchanged.plan;
  const Layout l = layout_of(p);
  uint8_t lows[16] = {}, highs[16] = {};
  for (int code = 0; code < 1 << (kBits - 1); ++code) {
    lows[code % 16] |= Source::low(p.weight.grid[code], code);
    highs[code % 16] |= Source::high(p.weight.grid[code], code);
  }
  std::vector<int8_t> rows(exchanged.m * p.k_padded);
  narrow_exchanged(static_cast<const int16_t*>(exchanged.x.digits), int64_t(rows.size()), rows.data());
  LinearArgs a = exchanged;
  a.x.digits = rows.data();
  const TileCall call{&a, std::vector<int32_t>(a.m * p.folds), {}, Scratch(0), {}};
  std::vector<float> scales(l.groups * kPanel);
  const auto source_of = [&](const Panel& panel) { return Source{panel.codes, Table(lows), Table(highs)}; };
  if (a.m == 1) {
    const int64_t apart = (end - begin) / kStreams;
    for (int64_t i = begin; i < begin + apart; ++i) {
      const UnscaledPanel<Isa, false> panels[kStreams] = {{p, l, a.weight, i}, {p, l, a.weight, i + apart}};
      const Source sources[kStreams] = {source_of(panels[0]), source_of(panels[1])};
      tile<Isa, kMethod, kStreams, 1>(call, panels, sources, 0, {nullptr, 0});
    }
    begin += kStreams * apart;
  }
  for (int64_t i = begin; i < end; ++i) {
    const ScaledPanel<Isa> panel(p, l, a.weight, i, scales.data());
    fused_tiles<Isa, kMethod, kRows>(call, panel, source_of(panel), 0, kBits * kRowBytes);
  }
}

template <class Isa>
void linear_two_digits(const LinearArgs& a, int64_t begin, int64_t end) {
  if (a.plan->weight.bits == 5) return linear_two_digits_bits<Isa, 5>(a, begin, end);
  return linear_two_digits_bits<Isa, 6>(a, begin, end);
}

}  // namespace
}  // namespace minifloat
