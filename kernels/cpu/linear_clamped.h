// y = x @ w.T with weights and activations of 8 bits, whose products leave room for one pair in int16 (clamps_activations).
//
// vpmaddubsw multiplies unsigned by signed bytes. Activations cut off at +-kClamp and made unsigned by adding kClamp need
// nothing done for their signs, and two pairs of products with weights fit an int16 sum that starts with -kClamp times the
// weights' sum, whatever wraps on the way; but for few weights, whose octets (8 k's of 16 outputs) the layout marks. So
//
//   x w = clamped(x) w' + (x - clamped(x)) w' + x (w - w')
//
// where w' = w but in marked octets, where it is half of it. The second term is of few quads of a row, the third of few octets.
#pragma once

#include "bytes.h"
#include "tiles_int8.h"

namespace minifloat {
namespace {

constexpr int kOctetBytes = kOctet * kPanel;

// What a call's activations are made into, once for all panels.
struct ClampedRows {
  struct Rest {
    int32_t quad;  // of the row
    int8_t digits[4];
  };
  std::vector<uint8_t> digits;  // (m, k_padded)
  std::vector<Rest> rests;      // what was cut off, row by row
  std::vector<int64_t> begins;  // (m * folds + 1): where the rests of a row's fold begin

  explicit ClampedRows(const LinearArgs& a) : digits(a.m * a.plan->k_padded), begins{0} {
    const Plan& p = *a.plan;
    begins.reserve(a.m * p.folds + 1);
    const int64_t length = p.fold_padded;
    std::vector<int8_t> rest(length);
    std::vector<Rest> of_fold(length / 4 + 1);  // one more, where what is not kept goes
    for (int64_t i = 0; i < a.m * p.folds; ++i) {
      cut_off(static_cast<const int8_t*>(a.x.digits) + i * length, length, kClamp, digits.data() + i * length, rest.data());
      const int32_t quads = int32_t(length / 4), first = int32_t(i % p.folds) * quads;
      Rest* end = of_fold.data();
      for (int32_t q = 0; q < quads; ++q) {
        uint32_t word;
        __builtin_memcpy(&word, rest.data() + 4 * q, 4);
        end->quad = first + q;
        __builtin_memcpy(end->digits, &word, 4);
        end += word != 0;
      }
      rests.insert(rests.end(), of_fold.data(), end);
      begins.push_back(int64_t(rests.size()));
    }
  }
};

// Octets of a decoded panel, and what their int16 sums start with.
template <class Isa>
struct Octets {
  Scratch digits, starts;  // (count, 2 quads, kRowBytes), (count, kRowBytes)
  explicit Octets(const Plan& p) : digits(p.k_padded * kPanel), starts(p.k_padded / kOctet * kRowBytes) {}
  MF_INLINE void set(int64_t i, typename Isa::Bytes shift, typename Isa::Bytes w0, typename Isa::Bytes w1) {
    Isa::store(digits.data + i * kOctetBytes, w0);
    Isa::store(digits.data + i * kOctetBytes + kRowBytes, w1);
    const auto sum = Isa::add16(Isa::pair_dot(shift, w0), Isa::pair_dot(shift, w1));
    Isa::store(starts.data + i * kRowBytes, Isa::sub16(Isa::zero_bytes(), sum));
  }
};

// A decoded panel: w' of all octets, and w - w' of those that are marked.
template <class Isa>
struct HalvedPanel {
  Octets<Isa> halved, rest;
  std::vector<int32_t> rest_at;    // where the marked octets' activations stand in a row
  std::vector<int64_t> rest_ends;  // (folds)

  explicit HalvedPanel(const Plan& p) : halved(p), rest(p), rest_ends(p.folds) {}

  template <class Source>
  void decode(const Plan& p, const Panel& panel, const Source& source) {
    rest_at.clear();
    for (int64_t f = 0, block = 0; f < p.folds; ++f) {
      for (; block * kBlock < (f + 1) * p.fold_padded; ++block) {
        const auto shift = Isa::splat_byte(kClamp);
        for_count<4>([&](auto i) MF_ALWAYS_INLINE {
          halved.set(4 * block + i, shift, source.template quad<2 * i % 4>(2 * block + i / 2),
                     source.template quad<2 * i % 4 + 1>(2 * block + i / 2));
        });
        if (panel.marks[block])
          for (int i = 0; i < 4; ++i)
            if (panel.marks[block] >> i & 1) halve(4 * block + i);
      }
      rest_ends[f] = int64_t(rest_at.size());
    }
  }
  __attribute__((noinline)) void halve(int64_t octet) {
    const auto w0 = Isa::load(halved.digits.data + octet * kOctetBytes);
    const auto w1 = Isa::load(halved.digits.data + octet * kOctetBytes + kRowBytes);
    const auto half0 = Isa::half8(w0), half1 = Isa::half8(w1);
    halved.set(octet, Isa::splat_byte(kClamp), half0, half1);
    rest.set(int64_t(rest_at.size()), Isa::splat_byte(128), Isa::sub8(w0, half0), Isa::sub8(w1, half1));
    rest_at.push_back(int32_t(octet * kOctet));
  }
};

// Adds the products of an octet and kRows rows: the unsigned bytes at x[r] + at, to which kPlus is added first.
template <class Isa, int kRows, int kPlus, class Octets, class Sums>
MF_INLINE void add_octet(const Octets& octets, int64_t i, const int8_t* const* x, int64_t at, Sums& sums) {
  const uint8_t* digits = octets.digits.data + i * kOctetBytes;
  const auto w0 = Isa::load(digits), w1 = Isa::load(digits + kRowBytes);
  const auto start = Isa::load(octets.starts.data + i * kRowBytes);
  const auto quad = [](const int8_t* at) MF_ALWAYS_INLINE {
    return kPlus ? Isa::add8(Isa::splat4(at), Isa::splat_byte(kPlus)) : Isa::splat4(at);
  };
  MF_UNROLL for (int r = 0; r < kRows; ++r) {
    const auto first = Isa::add16(start, Isa::pair_dot(quad(x[r] + at), w0));
    sums.set(r, Isa::widen_add(sums.get(r), Isa::add16(first, Isa::pair_dot(quad(x[r] + at + 4), w1)), 1));
  }
}

template <class Isa, int kRows>
void clamped_tile(const LinearArgs& a, const ClampedRows& rows, const ScaledPanel<Isa>& panel, const HalvedPanel<Isa>& w,
                  int64_t m, Ahead ahead) {
  const Plan& p = *a.plan;
  const int8_t *x[kRows], *uncut[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) {
    x[r] = reinterpret_cast<const int8_t*>(rows.digits.data()) + (m + r) * p.k_padded;
    uncut[r] = static_cast<const int8_t*>(a.x.digits) + (m + r) * p.k_padded;
  }
  TileOutputs<Isa, 1, kRows, false> outputs(a, &panel, m);
  int64_t block = 0, rest = 0;
  for (int64_t f = 0; f < p.folds; ++f) {
    RegisterSums<Isa, kRows> sums(nullptr);
    MF_UNROLL for (int r = 0; r < kRows; ++r) sums.set(r, Isa::splat_int(0));
    for (; block * kBlock < (f + 1) * p.fold_padded; ++block) {
      for_count<4>([&](auto i) MF_ALWAYS_INLINE {
        add_octet<Isa, kRows, 0>(w.halved, 4 * block + i, x, block * kBlock + i * kOctet, sums);
      });
      ahead.fetch();
    }
    for (; rest < w.rest_ends[f]; ++rest) add_octet<Isa, kRows, 128>(w.rest, rest, uncut, w.rest_at[rest], sums);
    MF_UNROLL for (int r = 0; r < kRows; ++r) {
      const int64_t* begins = rows.begins.data() + (m + r) * p.folds + f;
      for (int64_t i = begins[0]; i < begins[1]; ++i) {
        const ClampedRows::Rest& cut = rows.rests[i];
        const auto digits = Signed<Isa>::of(Isa::load(w.halved.digits.data + cut.quad * kRowBytes));
        const auto product = Isa::pair_dot(digits.magnitude, Isa::sign8(Isa::splat4(cut.digits), digits.sign));
        sums.set(r, Isa::widen_add(sums.get(r), product, 1));
      }
    }
    outputs.add_fold(f, 0, sums, 0);
    outputs.end_fold();
  }
  outputs.finish_all();
}

template <class Isa, int kBits, Lookup kLookup>
void linear_clamped(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const ClampedRows rows(a);
  std::vector<float> scales(l.groups * kPanel);
  HalvedPanel<Isa> w(p);
  for (int64_t i = begin; i < end; ++i) {
    const ScaledPanel<Isa> panel(p, l, a.weight, i, scales.data());
    w.decode(p, panel, PackedDigits<Isa, kBits, kLookup, true>(panel.codes, digits, p.offset));
    for_tiles<Isa::kRows>(a.m, 0, l.blocks, panel.codes + l.panel_bytes, i + 1 < end ? l.panel_bytes : 0,
                          [&](auto count, int64_t m, Ahead ahead) {
                            clamped_tile<Isa, count>(a, rows, panel, w, m, ahead);
                          });
  }
}

}  // namespace
}  // namespace minifloat
