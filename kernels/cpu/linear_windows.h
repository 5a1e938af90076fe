// y = x @ w.T for signed minifloats of up to five exponent bits, activations of 8 bits and any K (carrier kInt16Windows).
//
// An int16 digit holds the significands of a window of exponents (significands.h); weights of the windows below are 0 in it. With
// a scale for the largest weight of a row few weights are below the first window: of normally distributed ones 2 of 1000
// (e4m3fn) or 8 of 10000 (e5m2). So the first window is multiplied for every quad, another one for the quads alone that the
// layout marks as holding such a weight. Weights spread evenly over all exponents take the time of all windows.
#pragma once

#include "linear_significand.h"

namespace minifloat {
namespace {

// An int32 sum is sure to hold so many quads: digits are less than 2**14 - 2**7, activations at most 2**7.
constexpr int64_t kQuadsPerSum = 256;
static_assert(kQuadsPerSum * 4 * ((1 << 14) - (1 << 7)) * 128 < int64_t(1) << 31);

constexpr int kQuadBytes = 2 * kRowBytes;  // of decoded digits

// visit(quad) for the marked ones of quads [begin, end), multiples of 4, in ascending order.
template <class Visit>
MF_INLINE void for_marked(const uint8_t* marks, int64_t begin, int64_t end, Visit visit) {
  for (int64_t first = begin / 8 * 8; first < end; first += 64) {
    uint64_t word;
    __builtin_memcpy(&word, marks + first / 8, 8);
    if (first < begin) word &= ~uint64_t(15);
    if (end - first < 64) word &= (uint64_t(1) << (end - first)) - 1;
    for (; word; word &= word - 1) visit(first + std::countr_zero(word));
  }
}

// How codes are digits of the first window and of the lower ones.
template <class Isa, int kBits, bool kFiveExponentBits>
struct WindowTables {
  typename Isa::template Significands<kBits, kFiveExponentBits ? Fields::kFromFirst : Fields::kFew, true> first;
  typename Isa::template Significands<kBits, kFiveExponentBits ? Fields::kWithin : Fields::kFew, true> lower[2];

  explicit WindowTables(const Operand& o)
      : first(significand_window(o, 0)), lower{{significand_window(o, 1)}, {significand_window(o, 2)}} {}
};

// Few rows: digits are made for every tile of rows.
template <class Isa, int kBits, bool kFiveExponentBits>
struct PackedWindows {
  const WindowTables<Isa, kBits, kFiveExponentBits>& tables;
  const uint8_t* panel;

  // visit(quad, digits) for all quads of a half block
  template <class Visit>
  MF_INLINE void first(int64_t half, Visit visit) const {
    fetch_ahead<kBits>(panel, half);
    for_count<4>([&](auto q) MF_ALWAYS_INLINE {
      const auto codes = stored_codes<Isa, kBits, may_be_split(kBits), q>(panel + (half >> 1) * kBits * kRowBytes, half & 1);
      visit(4 * half + q, quad_digits<Isa>(tables.first, codes));
    });
  }
  // The digits in a lower window, of a quad that is its number `index` of the marked ones.
  MF_INLINE QuadDigits<Isa> lower(int window, int64_t quad, int64_t /*index*/) const {
    if constexpr (kBits == 8) return quad_digits<Isa>(tables.lower[window], Isa::load(panel + quad * kRowBytes));
    auto codes = Isa::zero_bytes();
    for_count<4>([&](auto q) MF_ALWAYS_INLINE {
      if (quad % 4 == q) codes = stored_codes<Isa, kBits, may_be_split(kBits), q>(panel + (quad >> 3) * kBits * kRowBytes, (quad >> 2) & 1);
    });
    return quad_digits<Isa>(tables.lower[window], codes);
  }
};

// Many rows: digits in memory, those of a lower window for marked quads only, one after the other.
template <class Isa>
struct DecodedWindows {
  uint8_t* first_digits;
  uint8_t* lower_digits[2];

  static MF_INLINE QuadDigits<Isa> load(const uint8_t* at) { return {Isa::load_ints(at), Isa::load_ints(at + kRowBytes)}; }
  static MF_INLINE void store(uint8_t* at, QuadDigits<Isa> digits) {
    Isa::store_ints(at, digits.even);
    Isa::store_ints(at + kRowBytes, digits.odd);
  }
  template <class Visit>
  MF_INLINE void first(int64_t half, Visit visit) const {
    for (int64_t quad = 4 * half; quad < 4 * half + 4; ++quad) visit(quad, load(first_digits + quad * kQuadBytes));
  }
  MF_INLINE QuadDigits<Isa> lower(int window, int64_t /*quad*/, int64_t index) const {
    return load(lower_digits[window] + index * kQuadBytes);
  }
};

// What all panels of a call share.
struct WindowCall {
  const LinearArgs* args;
  int lower;        // windows below the first
  double worth[2];  // of a digit in a lower window, in digits of the first
  double unit;      // what a product with a digit of the first window is worth

  explicit WindowCall(const LinearArgs& a) : args(&a), lower(significand_windows(*a.plan) - 1) {
    const Operand& o = a.plan->weight;
    const int shift = significand_window(o, 0).shift;
    for (int w = 0; w < 2; ++w) worth[w] = std::ldexp(1.0, significand_window(o, 1 + w).shift - shift);
    unit = std::ldexp(1.0, a.plan->unit + shift);
  }
};

template <class Isa, int kRows, class Source>
void window_tile(const WindowCall& call, const Panel& panel, const Source& source, int64_t m) {
  using Floats = typename Isa::Floats;
  const LinearArgs& a = *call.args;
  const Plan& p = *a.plan;
  const int16_t* x[kRows];
  Floats y[kRows];
  alignas(64) double totals[kRows][kPanel];
  for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const int16_t*>(a.x.digits) + (m + r) * p.k_padded;
    y[r] = Isa::splat(0.0f);
  }
  const bool grouped = p.activation.granularity == kGroup;
  const int64_t halves = p.fold_padded / 16, a_groups = activation_groups(p);
  const int64_t w_per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  const int64_t a_per_scale = grouped ? p.activation.group_size / p.fold : p.folds;
  int64_t visited[2] = {};  // marked quads of the lower windows
  for (int64_t f = 0; f < p.folds; ++f) {
    typename Isa::Ints sums[kRows];
    MF_UNROLL for (int r = 0; r < kRows; ++r) sums[r] = Isa::splat_int(0);
    const auto add = [&](int64_t quad, QuadDigits<Isa> w) MF_ALWAYS_INLINE {
      MF_UNROLL for (int r = 0; r < kRows; ++r) {
        const int16_t* at = x[r] + 4 * quad;
        sums[r] = Isa::add_int(sums[r], Isa::pair_dot16(w.even, Isa::splat_pair(at)));
        sums[r] = Isa::add_int(sums[r], Isa::pair_dot16(w.odd, Isa::splat_pair(at + 2)));
      }
    };
    // Sums of doubles below 2**53 units are exact: the only rounding is the one to float.
    bool in_totals = false;
    double worth = 1.0;  // of what is in the sums
    MF_UNROLL for (int r = 0; r < kRows; ++r) Isa::store_doubles(totals[r], Isa::splat_double(0.0));
    const auto settle = [&] {
      for (int r = 0; r < kRows; ++r) {
        const auto sum = Isa::ints_to_doubles(sums[r]);
        Isa::store_doubles(totals[r], Isa::fma_double(sum, Isa::splat_double(worth), Isa::load_doubles(totals[r])));
        sums[r] = Isa::splat_int(0);
      }
      in_totals = true;
    };
    const int64_t begin = f * halves, end = begin + halves;
    for (int64_t h = begin; h < end; ++h) {
      source.first(h, add);
      if ((h + 1 - begin) % (kQuadsPerSum / 4) == 0) settle();
    }
    for (int w = 0; w < call.lower; ++w) {
      int64_t here = 0;
      for_marked(panel.marks + w * p.k_padded / kBlock, 4 * begin, 4 * end, [&](int64_t quad) MF_ALWAYS_INLINE {
        if (here++ % kQuadsPerSum == 0) {
          settle();
          worth = call.worth[w];
        }
        add(quad, source.lower(w, quad, visited[w]++));
      });
    }
    if (in_totals) settle();
    const Floats w_scale = load_scales<Isa>(p.weight, panel.scales, f / w_per_scale);
    for (int r = 0; r < kRows; ++r) {
      const Floats value =
          in_totals ? Isa::to_floats(Isa::mul_double(Isa::load_doubles(totals[r]), Isa::splat_double(call.unit)))
                    : Isa::mul(Isa::to_float(sums[r]), Isa::splat(float(call.unit)));
      Floats scale = w_scale;
      if (grouped) scale = Isa::mul(scale, Isa::splat(a.x.scales[(m + r) * a_groups + f / a_per_scale]));
      y[r] = Isa::add(y[r], Isa::mul(value, scale));
    }
  }
  for (int r = 0; r < kRows; ++r) finish<Isa>(a, panel, m + r, y[r]);
}

// All rows from m on, in tiles of kRows and what is left in smaller ones.
template <class Isa, int kRows, class Source>
void window_tiles(const WindowCall& call, const Panel& panel, const Source& source, int64_t m) {
  if constexpr (kRows > 0) {
    for (; m + kRows <= call.args->m; m += kRows) window_tile<Isa, kRows>(call, panel, source, m);
    window_tiles<Isa, kRows == 6 ? 4 : kRows / 2>(call, panel, source, m);
  }
}

template <class Isa, int kBits, bool kFiveExponentBits>
void linear_windows_bits(const LinearArgs& a, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const WindowTables<Isa, kBits, kFiveExponentBits> tables(p.weight);
  const WindowCall call(a);
  const bool few = a.choice.decode == Decode::kRegisters;
  const int64_t quads = p.k_padded / 4;
  const int64_t bytes = quads * kQuadBytes;
  Scratch memory(few ? 0 : (1 + call.lower) * bytes);
  const DecodedWindows<Isa> decoded{memory.data, {memory.data + bytes, memory.data + 2 * bytes}};
  for (int64_t i = begin; i < end; ++i) {
    const Panel panel(p, l, a.weight, i);
    const PackedWindows<Isa, kBits, kFiveExponentBits> packed{tables, panel.codes};
    if (few) {
      window_tiles<Isa, 4>(call, panel, packed, 0);
      continue;
    }
    for (int64_t h = 0; h < quads / 4; ++h)
      packed.first(h, [&](int64_t quad, QuadDigits<Isa> digits) MF_ALWAYS_INLINE {
        decoded.store(decoded.first_digits + quad * kQuadBytes, digits);
      });
    for (int w = 0; w < call.lower; ++w) {
      int64_t index = 0;
      for_marked(panel.marks + w * l.blocks, 0, quads, [&](int64_t quad) MF_ALWAYS_INLINE {
        decoded.store(decoded.lower_digits[w] + index++ * kQuadBytes, packed.lower(w, quad, 0));
      });
    }
    window_tiles<Isa, Isa::kRows>(call, panel, decoded, 0);
  }
}

template <class Isa>
void linear_windows(const LinearArgs& a, int64_t begin, int64_t end) {
  const Operand& o = a.plan->weight;
  const bool five = o.bits - 1 - o.mantissa_bits == 5;
  switch (o.bits) {
    case 5: return linear_windows_bits<Isa, 5, false>(a, begin, end);
    case 6: return linear_windows_bits<Isa, 6, false>(a, begin, end);
    case 7: return five ? linear_windows_bits<Isa, 7, true>(a, begin, end) : linear_windows_bits<Isa, 7, false>(a, begin, end);
    default: return five ? linear_windows_bits<Isa, 8, true>(a, begin, end) : linear_windows_bits<Isa, 8, false>(a, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
