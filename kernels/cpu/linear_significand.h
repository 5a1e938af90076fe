// y = x @ w.T for signed minifloats of up to five exponent bits whose grids exceed 8 bits (carriers kInt16 and kInt16Pair).
//
// A grid value is significand << shift, and sign, significand and exponent are fields of the code: tables of 16 entries by
// exponent take the place of a table of all values. One byte multiply makes int16 digits of two codes of a 32-bit lane. Shifts
// of 8 and more have a digit of their own, so that a weight is low + high * 2**8, one of them zero.
//
// Five exponent bits are two windows of 16 exponents. With a scale for the largest weight of a row, few weights are below the
// upper window (one of 10000 normally distributed ones), so the lower one is multiplied only for half blocks that hold such.
#pragma once

#include "linear_words.h"
#include "significands.h"

namespace minifloat {
namespace {

static_assert(kStretch * 16 * 1920 * 128 < int64_t(1) << 31);  // a digit is at most 15 << 7, an activation 128

// Two int16 digits: low + high * 2**8.
template <class Isa>
struct PairDigits {
  using Activation = int16_t;
  struct Digits {
    typename Isa::Ints low, high;  // each two int16 per output
  };
  struct Sum {
    typename Isa::Ints low, high;
    typename Isa::Doubles total;
  };
  static constexpr int kPerStep = 2;
  static constexpr int kRows = Isa::kPairRows;
  static constexpr int kBytes = 128;
  static Sum zero() { return {Isa::splat_int(0), Isa::splat_int(0), Isa::splat_double(0.0)}; }
  static MF_INLINE Sum multiply_add(Sum sum, Digits w, const int16_t* x) {
    const auto pair = Isa::splat_pair(x);
    return {Isa::add_int(sum.low, Isa::pair_dot16(w.low, pair)), Isa::add_int(sum.high, Isa::pair_dot16(w.high, pair)),
            sum.total};
  }
  static MF_INLINE void settle(Sum& sum) {
    sum.total = Isa::add_double(
        sum.total, Isa::fma_double(Isa::ints_to_doubles(sum.high), Isa::splat_double(1 << kHighShift),
                                   Isa::ints_to_doubles(sum.low)));
    sum.low = sum.high = Isa::splat_int(0);
  }
  // From the upper window to the lower.
  static MF_INLINE void next_window(Sum& sum) {
    settle(sum);
    sum.total = Isa::mul_double(sum.total, Isa::splat_double(1 << kWindowShift));
  }
  // Sums of doubles below 2**53 are exact: the only rounding is the one to float.
  static MF_INLINE typename Isa::Floats value(Sum sum, typename Isa::Floats unit) {
    settle(sum);
    return Isa::to_floats(Isa::mul_double(sum.total, Isa::to_doubles(unit)));
  }
  static MF_INLINE Digits load(const uint8_t* at) { return {Isa::load_ints(at), Isa::load_ints(at + kRowBytes)}; }
  static MF_INLINE void store(uint8_t* at, Digits d) {
    Isa::store_ints(at, d.low);
    Isa::store_ints(at + kRowBytes, d.high);
  }
};

template <class Isa, class Carrier, int kBits, bool kWindowed>
struct PackedSignificands {
  static constexpr bool kPair = std::is_same_v<Carrier, PairDigits<Isa>>;
  const uint8_t* panel;
  typename Isa::template Significands<kBits, kWindowed> tables;

  void set_group(const Plan&, const Panel&, int64_t) {}  // minifloats have no zero points
  // Steps are pairs of k's: 0 and 2, then 1 and 3 of each quad; activations were stored in that order.
  template <class Visit>
  MF_INLINE void half(int64_t index, Visit visit) const {
    fetch_ahead<kBits>(panel, index);
    for_count<4>([&](auto q) MF_ALWAYS_INLINE {
      const auto codes = stored_codes<Isa, kBits, q>(panel + (index >> 1) * kBits * kRowBytes, index & 1);
      const auto exponents = tables.exponents(codes);
      const auto significands = tables.significands(codes, exponents);
      const auto even = Isa::template bytes_of<0>(significands), odd = Isa::template bytes_of<1>(significands);
      const auto low = tables.low_powers(exponents);
      if constexpr (kPair) {
        const auto high = tables.high_powers(exponents);
        visit(8 * index + 2 * q, {Isa::pair_dot(low, even), Isa::pair_dot(high, even)});
        visit(8 * index + 2 * q + 1, {Isa::pair_dot(low, odd), Isa::pair_dot(high, odd)});
      } else {
        visit(8 * index + 2 * q, Isa::pair_dot(low, even));
        visit(8 * index + 2 * q + 1, Isa::pair_dot(low, odd));
      }
    });
  }
};

// The upper window, and the lower one for the half blocks that need it, which shows while the upper one is decoded.
template <class Isa, int kBits>
struct TwoWindows {
  using Source = PackedSignificands<Isa, PairDigits<Isa>, kBits, true>;
  Source upper, lower;
  uint8_t* needed;  // by half block

  void set_group(const Plan&, const Panel&, int64_t) {}
  template <class Visit>
  MF_INLINE void half(int64_t index, Visit visit) const {
    upper.half(index, visit);
    auto least = Isa::splat_byte(0xff);
    for_count<4>([&](auto q) MF_ALWAYS_INLINE {
      const auto codes = stored_codes<Isa, kBits, q>(upper.panel + (index >> 1) * kBits * kRowBytes, index & 1);
      const auto magnitudes = Isa::template field<0, 0, kBits - 1>(codes);
      least = Isa::min8(least, Isa::add8(magnitudes, Isa::splat_byte(0xff)));  // zero becomes 255
    });
    needed[index] = Isa::any_below(least, (1 << (kBits - 2)) - 1);  // others have the top bit of the exponent
  }
};

template <class Isa, class Carrier, int kBits>
void linear_significands_bits(const LinearArgs& a, int64_t begin, int64_t end) {
  using Source = PackedSignificands<Isa, Carrier, kBits, false>;
  const typename Isa::template Significands<kBits, false> tables(significand_table(a.plan->weight, 0));
  linear_panels<Isa, Carrier>(a, begin, end, [&](const Panel& panel) { return Source{panel.codes, tables}; });
}

template <class Isa, class Carrier>
void linear_significands(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->weight.bits) {
    case 5: return linear_significands_bits<Isa, Carrier, 5>(a, begin, end);
    case 6: return linear_significands_bits<Isa, Carrier, 6>(a, begin, end);
    case 7: return linear_significands_bits<Isa, Carrier, 7>(a, begin, end);
    default: return linear_significands_bits<Isa, Carrier, 8>(a, begin, end);
  }
}

template <class Isa, int kBits>
void linear_two_windows(const LinearArgs& a, int64_t begin, int64_t end) {
  using Tables = typename Isa::template Significands<kBits, true>;
  const Tables lower(significand_table(a.plan->weight, 0)), upper(significand_table(a.plan->weight, 1));
  std::vector<uint8_t> needed(a.plan->k_padded / 16);
  linear_panels<Isa, PairDigits<Isa>>(a, begin, end, [&](const Panel& panel) {
    return TwoWindows<Isa, kBits>{{panel.codes, upper}, {panel.codes, lower}, needed.data()};
  });
}

template <class Isa>
void linear_int16(const LinearArgs& a, int64_t begin, int64_t end) {
  const int windows = significand_windows(*a.plan);
  if (windows == 2) {
    if (a.plan->weight.bits == 8) return linear_two_windows<Isa, 8>(a, begin, end);
    return linear_two_windows<Isa, 7>(a, begin, end);
  }
  if (a.plan->carrier == kInt16Pair) return linear_significands<Isa, PairDigits<Isa>>(a, begin, end);
  if (windows == 1) return linear_significands<Isa, ShortDigits<Isa>>(a, begin, end);
  linear_words<Isa, ShortDigits>(a, begin, end);
}

template <class Isa>
void linear(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->carrier) {
    case kFloat: return linear_words<Isa, FloatDigits>(a, begin, end);
    case kInt8: return linear_int8<Isa>(a, begin, end);
    case kInt16:
    case kInt16Pair: return linear_int16<Isa>(a, begin, end);
    case kFloat64: return linear_words<Isa, DoubleDigits>(a, begin, end);
    default: return linear_wide(a, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
