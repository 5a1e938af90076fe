// y = x @ w.T for signed minifloats of up to three exponent bits whose grids exceed 8 bits (carrier kInt16).
//
// A grid value is significand << shift, and sign, significand and exponent are fields of the code: tables of 16 entries by
// exponent take the place of a table of all values. One byte multiply makes int16 digits of two codes of a 32-bit lane.
#pragma once

#include "linear_words.h"
#include "significands.h"

namespace minifloat {
namespace {

// Two int16 digits of each of 16 outputs: of k's 0 and 2 of a quad, and of k's 1 and 3.
template <class Isa>
struct QuadDigits {
  typename Isa::Ints even, odd;
};

template <class Isa, class Significands>
MF_INLINE QuadDigits<Isa> quad_digits(const Significands& tables, typename Isa::Bytes codes) {
  const auto indices = tables.indices(codes), significands = tables.significands(codes, indices);
  const auto powers = tables.powers(indices);
  return {Isa::pair_dot(powers, Isa::template bytes_of<0>(significands)),
          Isa::pair_dot(powers, Isa::template bytes_of<1>(significands))};
}

template <class Isa, int kBits>
struct PackedSignificands {
  const uint8_t* panel;
  typename Isa::template Significands<kBits, Fields::kFew, false> tables;

  void set_group(const Plan&, const Panel&, int64_t) {}  // minifloats have no zero points
  // Steps are pairs of k's: 0 and 2, then 1 and 3 of each quad; activations were stored in that order.
  template <class Visit>
  MF_INLINE void half(int64_t index, Visit visit) const {
    fetch_ahead<kBits>(panel, index);
    for_count<4>([&](auto q) MF_ALWAYS_INLINE {
      const auto digits = quad_digits<Isa>(
          tables, stored_codes<Isa, kBits, may_be_split(kBits), q>(panel + (index >> 1) * kBits * kRowBytes, index & 1));
      visit(8 * index + 2 * q, digits.even);
      visit(8 * index + 2 * q + 1, digits.odd);
    });
  }
};

template <class Isa, int kBits>
void linear_significands_bits(const LinearArgs& a, int64_t begin, int64_t end) {
  using Source = PackedSignificands<Isa, kBits>;
  const decltype(Source::tables) tables(significand_window(a.plan->weight, 0));
  linear_panels<Isa, ShortDigits<Isa>>(a, begin, end, [&](const Panel& panel) { return Source{panel.codes, tables}; });
}

template <class Isa>
void linear_significands(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->weight.bits) {
    case 5: return linear_significands_bits<Isa, 5>(a, begin, end);
    case 6: return linear_significands_bits<Isa, 6>(a, begin, end);
    case 7: return linear_significands_bits<Isa, 7>(a, begin, end);
    default: return linear_significands_bits<Isa, 8>(a, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
