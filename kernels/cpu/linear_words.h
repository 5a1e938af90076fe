// y = x @ w.T where a weight is looked up as one 32-bit word: float32 (carrier kFloat), float64 and int16.
//
// float64 sums of products are exact while they stay below 2**53 units (the plan's proof), so they need no integers.
// int16 digits are multiplied in pairs and summed in int32.
#pragma once

#include "decode.h"

namespace minifloat {
namespace {

template <class Isa>
struct FloatDigits {
  using Activation = float;
  using Digits = typename Isa::Floats;
  using Sum = typename Isa::Floats;
  static constexpr int kPerStep = 1;  // k's per multiply
  static constexpr int kRows = Isa::kFloatRows, kFusedRows = 1;
  static constexpr int kBytes = 64;  // of Digits
  static Sum zero() { return Isa::splat(0.0f); }
  static int32_t word(const Operand& o, int code) { return std::bit_cast<int32_t>(o.values[code]); }
  static MF_INLINE Digits from_word(typename Isa::Ints word) { return Isa::as_floats(word); }
  static MF_INLINE Sum multiply_add(Sum sum, Digits w, const float* x) { return Isa::fma(w, Isa::splat(*x), sum); }
  static MF_INLINE typename Isa::Floats value(Sum sum, typename Isa::Floats) { return sum; }
  static MF_INLINE Digits load(const uint8_t* at) { return Isa::load_floats(reinterpret_cast<const float*>(at)); }
  static MF_INLINE void store(uint8_t* at, Digits d) { Isa::store_floats(reinterpret_cast<float*>(at), d); }
};

template <class Isa>
struct DoubleDigits : FloatDigits<Isa> {
  using Activation = double;
  using Digits = typename Isa::Doubles;
  using Sum = typename Isa::Doubles;
  static constexpr int kRows = Isa::kDoubleRows;
  static constexpr int kBytes = 128;
  static Sum zero() { return Isa::splat_double(0.0); }
  static MF_INLINE Digits from_word(typename Isa::Ints word) { return Isa::to_doubles(Isa::as_floats(word)); }
  static MF_INLINE Sum multiply_add(Sum sum, Digits w, const double* x) {
    return Isa::fma_double(w, Isa::splat_double(*x), sum);
  }
  // The sum is in units of values, not of grids: nothing is left to scale.
  static MF_INLINE typename Isa::Floats value(Sum sum, typename Isa::Floats) { return Isa::to_floats(sum); }
  static MF_INLINE Digits load(const uint8_t* at) { return Isa::load_doubles(reinterpret_cast<const double*>(at)); }
  static MF_INLINE void store(uint8_t* at, Digits d) { Isa::store_doubles(reinterpret_cast<double*>(at), d); }
};

template <class Isa>
struct ShortDigits {
  using Activation = int16_t;
  using Digits = typename Isa::Ints;  // two int16 per output
  using Sum = typename Isa::Ints;
  static constexpr int kPerStep = 2;
  static constexpr int kRows = Isa::kRows, kFusedRows = 4;
  static constexpr int kBytes = 64;
  static Sum zero() { return Isa::splat_int(0); }
  static int32_t word(const Operand& o, int code) { return o.grid[code]; }
  static MF_INLINE Sum multiply_add(Sum sum, Digits w, const int16_t* x) {
    return Isa::add_int(sum, Isa::pair_dot16(w, Isa::splat_pair(x)));
  }
  static MF_INLINE typename Isa::Floats value(Sum sum, typename Isa::Floats unit) {
    return Isa::mul(Isa::to_float(sum), unit);
  }
  static MF_INLINE Digits load(const uint8_t* at) { return Isa::load_ints(at); }
  static MF_INLINE void store(uint8_t* at, Digits d) { Isa::store_ints(at, d); }
};

template <class Isa, class Carrier, int kBits, bool kInPlanes = may_be_split(kBits)>
struct PackedWords {
  const uint8_t* panel;
  typename Isa::template WordTable<kBits> table;
  bool has_zero_point;
  typename Isa::Floats zero_point;  // of the current group

  PackedWords(const uint8_t* panel, const int32_t* words, bool has_zero_point)
      : panel(panel), table(words), has_zero_point(has_zero_point), zero_point(Isa::splat(0.0f)) {}

  void set_group(const Plan& p, const Panel& at, int64_t group) {
    if (!has_zero_point) return;
    alignas(64) float values[kPanel];
    zero_point_values(p, at, group, values);
    zero_point = Isa::load_floats(values);
  }
  // The word of k 4 * kQuad + kByte of a half block.
  template <int kQuad, int kByte>
  MF_INLINE typename Isa::Ints word(const uint8_t* block, int half, typename Isa::Bytes codes) const {
    if constexpr (kBits == 4 && Isa::kLooksUpInRows)
      return table.template lookup_at<8 * kByte + 4 * (kQuad % 2)>(Isa::load(block + (2 * half + kQuad / 2) * kRowBytes));
    return table.lookup(Isa::template byte_of<kByte>(codes));
  }
  // visit(step, digits) for the 16 k's of a half block
  template <class Visit>
  MF_INLINE void half(int64_t index, Visit visit) const {
    fetch_ahead<kBits>(panel, index);
    const uint8_t* block = panel + (index >> 1) * kBits * kRowBytes;
    for_count<4>([&](auto q) MF_ALWAYS_INLINE {
      const auto codes = stored_codes<Isa, kBits, kInPlanes, q>(block, index & 1);
      typename Isa::Ints even{};
      for_count<4>([&](auto j) MF_ALWAYS_INLINE {
        typename Isa::Ints word = this->template word<q, j>(block, index & 1, codes);
        if constexpr (Carrier::kPerStep == 2) {
          if (has_zero_point) word = Isa::sub_int(word, Isa::to_int(zero_point));
          if constexpr (j % 2 == 0) {
            even = word;
          } else {
            visit(8 * index + 2 * q + j / 2, Isa::pair_words(even, word));
          }
        } else {
          if (has_zero_point) word = Isa::as_ints(Isa::sub(Isa::as_floats(word), zero_point));
          visit(16 * index + 4 * q + j, Carrier::from_word(word));
        }
      });
    });
  }
};

template <class Carrier>
struct DecodedWords {
  const uint8_t* digits;

  void set_group(const Plan&, const Panel&, int64_t) {}
  template <class Visit>
  MF_INLINE void half(int64_t index, Visit visit) const {
    constexpr int kSteps = 16 / Carrier::kPerStep;
    const int64_t first = index * kSteps;
    for_count<kSteps>([&](auto s) MF_ALWAYS_INLINE { visit(first + s, Carrier::load(digits + (first + s) * Carrier::kBytes)); });
  }
};

template <class Isa, class Carrier, int kRows, class Source>
void word_tile(const LinearArgs& a, const Panel& panel, Source source, int64_t m) {
  using Floats = typename Isa::Floats;
  const Plan& p = *a.plan;
  const typename Carrier::Activation* x[kRows];
  Floats y[kRows];
  for (int r = 0; r < kRows; ++r) {
    x[r] = static_cast<const typename Carrier::Activation*>(a.x.digits) + (m + r) * p.k_padded;
    y[r] = Isa::splat(0.0f);
  }
  const bool grouped = p.carrier != kFloat && p.activation.granularity == kGroup;
  const int64_t halves = p.fold_padded / 16, a_groups = grouped ? activation_groups(p) : 1;
  const int64_t w_per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  const int64_t a_per_scale = grouped ? p.activation.group_size / p.fold : p.folds;
  const Floats unit = Isa::splat(std::ldexp(1.0f, p.unit));
  for (int64_t f = 0; f < p.folds; ++f) {
    typename Carrier::Sum sums[kRows];
    MF_UNROLL for (int r = 0; r < kRows; ++r) sums[r] = Carrier::zero();
    source.set_group(p, panel, f / w_per_scale);
    const auto add = [&](int64_t step, typename Carrier::Digits w) MF_ALWAYS_INLINE {
      MF_UNROLL for (int r = 0; r < kRows; ++r)
        sums[r] = Carrier::multiply_add(sums[r], w, x[r] + step * Carrier::kPerStep);
    };
    for (int64_t h = f * halves; h < (f + 1) * halves; ++h) source.half(h, add);
    const Floats w_scale = load_scales<Isa>(p.weight, panel.scales, f / w_per_scale);
    for (int r = 0; r < kRows; ++r) {
      Floats scale = w_scale;
      if (grouped) scale = Isa::mul(scale, Isa::splat(a.x.scales[(m + r) * a_groups + f / a_per_scale]));
      y[r] = Isa::add(y[r], Isa::mul(Carrier::value(sums[r], unit), scale));
    }
  }
  for (int r = 0; r < kRows; ++r) finish<Isa>(a, panel, m + r, y[r]);
}

// One row, float contract, weights of up to 16 values, on an Isa::QuadTable.
template <class Isa, int kBits>
void float_row_by_quads(const LinearArgs& a, const Panel& panel, const typename Isa::QuadTable& table, int64_t m) {
  const Plan& p = *a.plan;
  const float* x = static_cast<const float*>(a.x.digits) + m * p.k_padded;
  const int64_t halves = p.fold_padded / 16;
  const int64_t per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  auto y = Isa::splat(0.0f);
  for (int64_t f = 0; f < p.folds; ++f) {
    auto sums = Isa::zero_quads();
    for (int64_t h = f * halves; h < (f + 1) * halves; ++h) {
      fetch_ahead<kBits>(panel.codes, h);
      for_count<4>([&](auto q) MF_ALWAYS_INLINE {
        const auto codes = stored_codes<Isa, kBits, false, q>(panel.codes + (h >> 1) * kBits * kRowBytes, h & 1);
        Isa::add_quad(sums, table, codes, x + 16 * h + 4 * q);
      });
    }
    y = Isa::add(y, Isa::mul(Isa::total(sums), load_scales<Isa>(p.weight, panel.scales, f / per_scale)));
  }
  finish<Isa>(a, panel, m, y);
}

// All rows from m on, in tiles of kRows and what is left in smaller ones.
template <class Isa, class Carrier, int kRows, class Source>
void word_tiles(const LinearArgs& a, const Panel& panel, const Source& source, int64_t m) {
  if constexpr (kRows > 0) {
    for (; m + kRows <= a.m; m += kRows) word_tile<Isa, Carrier, kRows>(a, panel, source, m);
    word_tiles<Isa, Carrier, kRows == 6 ? 4 : kRows / 2>(a, panel, source, m);
  }
}

template <class Carrier>
void word_table(const Operand& o, int32_t* words) {
  for (int stored = 0; stored < (1 << o.bits); ++stored) {
    const int code = stored ^ o.code_flip;
    words[stored] = o.values[code] == o.values[code] ? Carrier::word(o, code) : 0;
  }
}

// Panels [begin, end), whose codes `source_of(panel)` turns into the carrier's digits.
template <class Isa, class Carrier, class SourceOf>
MF_INLINE void linear_panels(const LinearArgs& a, int64_t begin, int64_t end, SourceOf source_of) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const bool fused = a.choice.decode == Decode::kRegisters;
  Scratch decoded(fused ? 0 : p.k_padded / Carrier::kPerStep * Carrier::kBytes);
  const int64_t halves = p.fold_padded / 16;
  const int64_t per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  for (int64_t i = begin; i < end; ++i) {
    const Panel panel(p, l, a.weight, i);
    auto source = source_of(panel);
    if (fused) {
      word_tiles<Isa, Carrier, Carrier::kFusedRows>(a, panel, source, 0);
      continue;
    }
    for (int64_t f = 0; f < p.folds; ++f) {
      source.set_group(p, panel, f / per_scale);
      for (int64_t h = f * halves; h < (f + 1) * halves; ++h) {
        source.half(h, [&](int64_t step, typename Carrier::Digits w) MF_ALWAYS_INLINE {
          Carrier::store(decoded.data + step * Carrier::kBytes, w);
        });
      }
    }
    word_tiles<Isa, Carrier, Carrier::kRows>(a, panel, DecodedWords<Carrier>{decoded.data}, 0);
  }
}

template <class Isa, class Carrier, int kBits>
void linear_words_panels(const LinearArgs& a, int64_t begin, int64_t end) {
  int32_t words[256] = {};
  word_table<Carrier>(a.plan->weight, words);
  if constexpr (std::is_same_v<Carrier, FloatDigits<Isa>> && kBits <= 4 && Isa::kLooksUpQuads) {
    if (a.choice.decode == Decode::kRegisters && !a.plan->weight.has_zero_point) {
      const Layout l = layout_of(*a.plan);
      const typename Isa::QuadTable table(words);
      for (int64_t i = begin; i < end; ++i) {
        const Panel panel(*a.plan, l, a.weight, i);
        for (int64_t m = 0; m < a.m; ++m) float_row_by_quads<Isa, kBits>(a, panel, table, m);
      }
      return;
    }
  }
  linear_panels<Isa, Carrier>(a, begin, end, [&](const Panel& panel) {
    return PackedWords<Isa, Carrier, kBits>(panel.codes, words, a.plan->weight.has_zero_point);
  });
}

template <class Isa, template <class> class Carrier>
void linear_words(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->weight.bits) {
    case 1: return linear_words_panels<Isa, Carrier<Isa>, 1>(a, begin, end);
    case 2: return linear_words_panels<Isa, Carrier<Isa>, 2>(a, begin, end);
    case 3: return linear_words_panels<Isa, Carrier<Isa>, 3>(a, begin, end);
    case 4: return linear_words_panels<Isa, Carrier<Isa>, 4>(a, begin, end);
    case 5: return linear_words_panels<Isa, Carrier<Isa>, 5>(a, begin, end);
    case 6: return linear_words_panels<Isa, Carrier<Isa>, 6>(a, begin, end);
    case 7: return linear_words_panels<Isa, Carrier<Isa>, 7>(a, begin, end);
    default: return linear_words_panels<Isa, Carrier<Isa>, 8>(a, begin, end);
  }
}

// Weights with their scales, transposed: out[k * stride + output - 16 * begin].
template <class Isa, int kBits, bool kInPlanes = may_be_split(kBits)>
void weights_as_float_bits(const Plan& p, const uint8_t* weight, float* out, int64_t stride, int64_t begin, int64_t end) {
  const Layout l = layout_of(p);
  if constexpr (kInPlanes) {
    if (!l.in_planes) return weights_as_float_bits<Isa, kBits, false>(p, weight, out, stride, begin, end);
  }
  int32_t words[256] = {};
  word_table<FloatDigits<Isa>>(p.weight, words);
  const int64_t halves = p.fold_padded / 16;
  const int64_t per_scale = p.weight.granularity == kGroup ? p.weight.group_size / p.fold : p.folds;
  const auto tensor_scale = Isa::splat(p.weight.tensor_scale);
  for (int64_t i = begin; i < end; ++i) {
    const Panel panel(p, l, weight, i);
    PackedWords<Isa, FloatDigits<Isa>, kBits, kInPlanes> source(panel.codes, words, p.weight.has_zero_point);
    for (int64_t f = 0; f < p.folds; ++f) {
      source.set_group(p, panel, f / per_scale);
      const auto scale = Isa::mul(load_scales<Isa>(p.weight, panel.scales, f / per_scale), tensor_scale);
      for (int64_t h = f * halves; h < (f + 1) * halves; ++h) {
        source.half(h, [&](int64_t step, typename Isa::Floats w) MF_ALWAYS_INLINE {
          const int64_t within = step - f * p.fold_padded;
          if (within >= p.fold) return;
          float* at = out + (f * p.fold + within) * stride + (i - begin) * kPanel;
          w = Isa::mul(w, scale);
          if (panel.outputs == kPanel) return Isa::store_floats(at, w);
          alignas(64) float values[kPanel];
          Isa::store_floats(values, w);
          std::copy(values, values + panel.outputs, at);
        });
      }
    }
  }
}

template <class Isa>
void weights_as_float(const Plan& p, const uint8_t* weight, float* out, int64_t stride, int64_t begin, int64_t end) {
  switch (p.weight.bits) {
    case 1: return weights_as_float_bits<Isa, 1>(p, weight, out, stride, begin, end);
    case 2: return weights_as_float_bits<Isa, 2>(p, weight, out, stride, begin, end);
    case 3: return weights_as_float_bits<Isa, 3>(p, weight, out, stride, begin, end);
    case 4: return weights_as_float_bits<Isa, 4>(p, weight, out, stride, begin, end);
    case 5: return weights_as_float_bits<Isa, 5>(p, weight, out, stride, begin, end);
    case 6: return weights_as_float_bits<Isa, 6>(p, weight, out, stride, begin, end);
    case 7: return weights_as_float_bits<Isa, 7>(p, weight, out, stride, begin, end);
    default: return weights_as_float_bits<Isa, 8>(p, weight, out, stride, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
