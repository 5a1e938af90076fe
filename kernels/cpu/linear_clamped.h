// y = x @ w.T with weights and activations of 8 bits, whose products leave room for one pair in int16 (clamps_activations).
//
// vpmaddubsw multiplies unsigned by signed bytes. Activations cut off at +-c (byte_limits) and made unsigned by adding c need
// nothing done for their signs, and one int16 sum takes the products of four quads, if it starts with -c times the weights'
// sum, whatever wraps on the way: the sum itself is at most the norm of its 8 weights times that of its 8 activations, and both
// are small but for few spans (16 k's). Activations there are cut off further down, and weights are halved, in the octets
// (8 k's of 16 outputs) that the layout marks. So
//
//   x w = kept(x) w' + (x - kept(x)) w' + x (w - w')
//
// where w' = w but in marked octets, where it is half of it. The second term is of few quads of a row, the third of few octets.
#pragma once

#include "bytes.h"
#include "residues.h"
#include "tiles_int8.h"

namespace minifloat {
namespace {

constexpr int kOctetBytes = kOctet * kPanel, kSpanBytes = kSpan * kPanel;

constexpr int kCutsATime = 2;  // so that how often a loop over what was cut off turns is easier to foresee

// Of one sign, what was cut off from a call's activations: fours of which not all are 0.
struct CutOff {
  std::vector<uint32_t> digits;  // of rows and their folds, filled up with zeros to multiples of kCutsATime
  std::vector<int32_t> quads;    // which of the row
  std::vector<int64_t> begins;   // (m * folds + 1): where those of a row's fold begin

  explicit CutOff(const LinearArgs& a) : begins{0} { begins.reserve(a.m * a.plan->folds + 1); }
  void add(const std::vector<uint8_t>& of_fold, int32_t first_quad) {
    const size_t begin = begins.back();
    if (digits.size() < begin + of_fold.size() / 4 + 8) {
      digits.resize(2 * begin + of_fold.size() + 8);
      quads.resize(digits.size());
    }
    size_t end = begin + collect_words(of_fold.data(), int64_t(of_fold.size()), first_quad, digits.data() + begin, quads.data() + begin);
    for (; end % kCutsATime != 0; ++end) digits[end] = quads[end] = 0;
    begins.push_back(int64_t(end));
  }
};

// What a call's activations are made into, once for all panels.
struct ClampedRows {
  std::vector<uint8_t> kept;  // (m, k_padded), plus the clamp
  CutOff above, below;

  explicit ClampedRows(const LinearArgs& a) : kept(a.m * a.plan->k_padded), above(a), below(a) {
    const Plan& p = *a.plan;
    const int64_t length = p.fold_padded;
    const ByteLimits limits = byte_limits(p);
    const int8_t clamp = int8_t(limits.clamp), clamp_of_full = int8_t(limits.clamp_of_full);
    std::vector<uint8_t> over(length), under(length);
    for (int64_t i = 0; i < a.m * p.folds; ++i) {
      const int8_t* x = static_cast<const int8_t*>(a.x.digits) + i * length;
      uint8_t* to = kept.data() + i * length;
      cut_off(x, length, clamp, clamp, to, over.data(), under.data());
      for (int64_t k = 0; k < length; k += 2 * kSpan) {
        if (squares_within(to + k, clamp, limits.activation_norm * limits.activation_norm)) continue;
        cut_off(x + k, 2 * kSpan, clamp_of_full, clamp, to + k, over.data() + k, under.data() + k);
      }
      const int32_t first = int32_t(i % p.folds * (length / 4));
      above.add(over, first);
      below.add(under, first);
    }
  }
};

// A decoded panel: w' of all quads, and w - w' of those in marked octets.
template <class Isa>
struct HalvedPanel {
  Scratch digits, starts;            // (quads, kRowBytes), and what the int16 sums of a span start with: (spans, kRowBytes)
  Scratch rests, rest_starts;        // (octets, kOctetBytes), (octets, kRowBytes), of w - w'
  std::vector<int32_t> rest_at;      // where the marked octets' activations stand in a row
  std::vector<int64_t> rest_ends;    // (folds)
  const int clamp;

  explicit HalvedPanel(const Plan& p)
      : digits(p.k_padded * kPanel),
        starts(p.k_padded / kSpan * kRowBytes),
        rests(p.k_padded * kPanel),
        rest_starts(p.k_padded / kOctet * kRowBytes),
        rest_ends(p.folds),
        clamp(byte_limits(p).clamp) {}

  template <class Source>
  void decode(const Plan& p, const Panel& panel, const Source& source) {
    rest_at.clear();
    for (int64_t f = 0, block = 0; f < p.folds; ++f) {
      for (; block * kBlock < (f + 1) * p.fold_padded; ++block) {
        for_count<8>([&](auto q) MF_ALWAYS_INLINE {
          Isa::store(digits.data + (8 * block + q) * kRowBytes, source.template quad<q % 4>(2 * block + q / 4));
        });
        if (panel.marks[block])
          for (int i = 0; i < kBlock / kOctet; ++i)
            if (panel.marks[block] >> i & 1) halve(kBlock / kOctet * block + i);
        for (int64_t span = block * kBlock / kSpan; span < (block + 1) * kBlock / kSpan; ++span)
          Isa::store(starts.data + span * kRowBytes, start_of<4>(digits.data + span * kSpanBytes, clamp));
      }
      rest_ends[f] = int64_t(rest_at.size());
    }
  }
  // What sums of kQuads quads start with where `plus` is added to their activations.
  template <int kQuads>
  static MF_INLINE typename Isa::Shorts start_of(const uint8_t* quads, int plus) {
    auto sum = Isa::zero_bytes();
    for_count<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      sum = Isa::sub16(sum, Isa::pair_dot(Isa::splat_byte(plus), Isa::load(quads + q * kRowBytes)));
    });
    return sum;
  }
  __attribute__((noinline)) void halve(int64_t octet) {
    uint8_t* const rest = rests.data + rest_at.size() * kOctetBytes;
    for (int i = 0; i < 2; ++i) {
      uint8_t* const at = digits.data + octet * kOctetBytes + i * kRowBytes;
      const auto w = Isa::load(at), half = Isa::half8(w);
      Isa::store(at, half);
      Isa::store(rest + i * kRowBytes, Isa::sub8(w, half));
    }
    Isa::store(rest_starts.data + rest_at.size() * kRowBytes, start_of<2>(rest, 128));
    rest_at.push_back(int32_t(octet * kOctet));
  }
};

template <class Isa, int kRows>
struct ClampedTile {
  RegisterSums<Isa, kRows> sums{nullptr};

  // The products of kQuads quads and kRows rows: the unsigned bytes at x[r], to which kPlus is added first.
  template <int kQuads, int kPlus>
  MF_INLINE void add(const uint8_t* quads, const uint8_t* start, const uint8_t* const* x, int64_t at) {
    typename Isa::Shorts partial[kRows];
    for_count<kQuads>([&](auto q) MF_ALWAYS_INLINE {
      const auto w = Isa::load(quads + q * kRowBytes);
      MF_UNROLL for (int r = 0; r < kRows; ++r) {
        auto a = Isa::splat4(reinterpret_cast<const int8_t*>(x[r] + at + 4 * q));
        if constexpr (kPlus) a = Isa::add8(a, Isa::splat_byte(kPlus));
        partial[r] = Isa::add16(q == 0 ? Isa::load(start) : partial[r], Isa::pair_dot(a, w));
        if constexpr (q == kQuads - 1) sums.set(r, Isa::widen_add(sums.get(r), partial[r], 1));
      }
    });
  }
  // What was cut off from row r: kSign times the digits from `begin` to `end`.
  template <int kSign>
  MF_INLINE void add_cut(const HalvedPanel<Isa>& w, int r, const CutOff& cut, const int64_t* begin) {
    for (int64_t i = begin[0]; i < begin[1]; i += kCutsATime) {
      MF_UNROLL for (int j = 0; j < kCutsATime; ++j) {
        const auto digits = Isa::splat4(reinterpret_cast<const int8_t*>(&cut.digits[i + j]));
        const auto weights = Isa::load(w.digits.data + int64_t(cut.quads[i + j]) * kRowBytes);
        sums.set(r, Isa::widen_add(sums.get(r), Isa::pair_dot(digits, weights), kSign));
      }
    }
  }
};

// What else the sums of a panel take: nothing. See linear_residues.h.
struct DigitsOnly {
  void begin_panel(int64_t) const {}
  template <class Ints>
  MF_INLINE Ints total(Ints sum, int64_t /*panel*/, int64_t /*m*/) const {
    return sum;
  }
};

template <class Isa, int kRows, class Residues>
void clamped_tile(const LinearArgs& a, const ClampedRows& rows, const ScaledPanel<Isa>& panel, const HalvedPanel<Isa>& w,
                  int64_t m, Ahead ahead, const Residues& residues) {
  const Plan& p = *a.plan;
  const uint8_t *kept[kRows], *whole[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) {
    kept[r] = rows.kept.data() + (m + r) * p.k_padded;
    whole[r] = static_cast<const uint8_t*>(a.x.digits) + (m + r) * p.k_padded;
  }
  TileOutputs<Isa, 1, kRows, false> outputs(a, &panel, m);
  int64_t span = 0, rest = 0;
  for (int64_t f = 0; f < p.folds; ++f) {
    ClampedTile<Isa, kRows> tile;
    MF_UNROLL for (int r = 0; r < kRows; ++r) tile.sums.set(r, Isa::splat_int(0));
    for (; span * kSpan < (f + 1) * p.fold_padded; span += kBlock / kSpan) {
      for_count<kBlock / kSpan>([&](auto i) MF_ALWAYS_INLINE {
        tile.template add<4, 0>(w.digits.data + (span + i) * kSpanBytes, w.starts.data + (span + i) * kRowBytes, kept,
                                (span + i) * kSpan);
      });
      ahead.fetch();
    }
    for (; rest < w.rest_ends[f]; ++rest)
      tile.template add<2, 128>(w.rests.data + rest * kOctetBytes, w.rest_starts.data + rest * kRowBytes, whole, w.rest_at[rest]);
    MF_UNROLL for (int r = 0; r < kRows; ++r) {
      const int64_t of_row = (m + r) * p.folds + f;
      tile.template add_cut<1>(w, r, rows.above, rows.above.begins.data() + of_row);
      tile.template add_cut<-1>(w, r, rows.below, rows.below.begins.data() + of_row);
      tile.sums.set(r, residues.total(tile.sums.get(r), panel.first_output / kPanel, m + r));
    }
    outputs.add_fold(f, 0, tile.sums, 0);
    outputs.end_fold();
  }
  outputs.finish_all();
}

template <class Isa, int kBits, Lookup kLookup, class Residues = DigitsOnly>
void linear_clamped(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end, Residues&& residues = {}) {
  constexpr int kRows = 3;  // as many as the registers hold beside int16 sums that are four deep
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const ClampedRows rows(a);
  std::vector<float> scales(l.groups * kPanel);
  HalvedPanel<Isa> w(p);
  for (int64_t i = begin; i < end; ++i) {
    const ScaledPanel<Isa> panel(p, l, a.weight, i, scales.data());
    residues.begin_panel(i);
    w.decode(p, panel, PackedDigits<Isa, kBits, kLookup, true>(panel.codes, digits, p.offset));
    for_tiles<kRows>(a.m, 0, l.blocks, panel.codes + l.panel_bytes, i + 1 < end ? l.panel_bytes : 0,
                     [&](auto count, int64_t m, Ahead ahead) {
                       clamped_tile<Isa, count>(a, rows, panel, w, m, ahead, residues);
                     });
  }
}

}  // namespace
}  // namespace minifloat
