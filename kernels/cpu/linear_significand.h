// y = x @ w.T for signed minifloats of up to four exponent bits whose grids exceed 8 bits (carriers kInt16 and kInt16Pair).
//
// A grid value is significand << shift, and sign, significand and exponent are fields of the code: tables of 16 entries by
// exponent take the place of a table of all values. One byte multiply makes int16 digits of two codes of a 32-bit lane. Shifts
// of 7 and more have a digit of their own, so that a weight is low + high * 2**7, one of them zero.
#pragma once

#include "linear_words.h"
#include "significands.h"

namespace minifloat {
namespace {

static_assert(kStretch * 16 * 1920 * 128 < int64_t(1) << 31);  // a digit is at most 15 << 7, an activation 128

// Two int16 digits: low + high * 2**7.
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

template <class Isa, class Carrier, int kBits>
struct PackedSignificands {
  static constexpr bool kPair = std::is_same_v<Carrier, PairDigits<Isa>>;
  const uint8_t* panel;
  typename Isa::template Significands<kBits> tables;

  void set_group(const Plan&, const Panel&, int64_t) {}  // minifloats have no zero points
  // Steps are pairs of k's: 0 and 2, then 1 and 3 of each quad; activations were stored in that order.
  template <class Visit>
  MF_INLINE void half(int64_t index, Visit visit) const {
    fetch_ahead<kBits>(panel, index);
    for_quads([&](auto q) __attribute__((always_inline)) {
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

template <class Isa, class Carrier, int kBits>
void linear_significands_bits(const LinearArgs& a, const SignificandTable& t, int64_t begin, int64_t end) {
  linear_panels<Isa, Carrier>(a, begin, end, [&](const Panel& panel) {
    return PackedSignificands<Isa, Carrier, kBits>{panel.codes, typename Isa::template Significands<kBits>(t)};
  });
}

template <class Isa, class Carrier>
void linear_significands(const LinearArgs& a, const SignificandTable& t, int64_t begin, int64_t end) {
  switch (a.plan->weight.bits) {
    case 5: return linear_significands_bits<Isa, Carrier, 5>(a, t, begin, end);
    case 6: return linear_significands_bits<Isa, Carrier, 6>(a, t, begin, end);
    case 7: return linear_significands_bits<Isa, Carrier, 7>(a, t, begin, end);
    default: return linear_significands_bits<Isa, Carrier, 8>(a, t, begin, end);
  }
}

template <class Isa>
void linear_int16(const LinearArgs& a, int64_t begin, int64_t end) {
  SignificandTable t;
  if (!multiplies_significands(*a.plan, &t)) return linear_words<Isa, ShortDigits>(a, begin, end);
  if (a.plan->carrier == kInt16Pair) return linear_significands<Isa, PairDigits<Isa>>(a, t, begin, end);
  linear_significands<Isa, ShortDigits<Isa>>(a, t, begin, end);
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
