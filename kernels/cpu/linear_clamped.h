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
  int64_t shifted_at;           // how far behind a clamped activation plus kClamp the activation itself plus 128 stands
  std::vector<uint8_t> digits;  // (2, m, k_padded)
  std::vector<Rest> rests;      // what was cut off, row by row
  std::vector<int64_t> begins;  // (m * folds + 1): where the rests of a row's fold begin

  explicit ClampedRows(const LinearArgs& a) : shifted_at(a.m * a.plan->k_padded), digits(2 * shifted_at), begins{0} {
    const int64_t k_padded = a.plan->k_padded;
    begins.reserve(a.m * a.plan->folds + 1);
    std::vector<uint8_t> uncut(k_padded);
    for (int64_t m = 0; m < a.m; ++m) {
      const int8_t* x = static_cast<const int8_t*>(a.x.digits) + m * k_padded;
      uint8_t *cut = digits.data() + m * k_padded, *shifted = cut + shifted_at;
      for (int64_t k = 0; k < k_padded; ++k) {
        cut[k] = uint8_t(std::clamp<int8_t>(x[k], -kClamp, kClamp) + kClamp);
        uncut[k] = uint8_t(x[k] + kClamp);
        shifted[k] = uint8_t(x[k] + 128);
      }
      for (int64_t block = 0; block < k_padded; block += kBlock) {
        if (__builtin_memcmp(cut + block, uncut.data() + block, kBlock) != 0) add_rests(cut, uncut.data(), block);
        if ((block + kBlock) % a.plan->fold_padded == 0) begins.push_back(int64_t(rests.size()));
      }
    }
  }
  void add_rests(const uint8_t* cut, const uint8_t* uncut, int64_t block) {
    for (int64_t k = block; k < block + kBlock; k += 4) {
      if (__builtin_memcmp(cut + k, uncut + k, 4) == 0) continue;
      rests.push_back({int32_t(k / 4), {}});
      for (int j = 0; j < 4; ++j) rests.back().digits[j] = int8_t(uncut[k + j] - cut[k + j]);
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

// Adds the products of an octet and kRows rows, whose activations stand at x[r] + at.
template <class Isa, int kRows, class Octets, class Sums>
MF_INLINE void add_octet(const Octets& octets, int64_t i, const int8_t* const* x, int64_t at, Sums& sums) {
  const uint8_t* digits = octets.digits.data + i * kOctetBytes;
  const auto w0 = Isa::load(digits), w1 = Isa::load(digits + kRowBytes);
  const auto start = Isa::load(octets.starts.data + i * kRowBytes);
  MF_UNROLL for (int r = 0; r < kRows; ++r) {
    const auto first = Isa::add16(start, Isa::pair_dot(Isa::splat4(x[r] + at), w0));
    sums.set(r, Isa::widen_add(sums.get(r), Isa::add16(first, Isa::pair_dot(Isa::splat4(x[r] + at + 4), w1)), 1));
  }
}

template <class Isa, int kRows>
void clamped_tile(const LinearArgs& a, const ClampedRows& rows, const ScaledPanel<Isa>& panel, const HalvedPanel<Isa>& w,
                  int64_t m, Ahead ahead) {
  const Plan& p = *a.plan;
  const int8_t* x[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r)
    x[r] = reinterpret_cast<const int8_t*>(rows.digits.data()) + (m + r) * p.k_padded;
  TileOutputs<Isa, 1, kRows, false> outputs(a, &panel, m);
  int64_t block = 0, rest = 0;
  for (int64_t f = 0; f < p.folds; ++f) {
    RegisterSums<Isa, kRows> sums(nullptr);
    MF_UNROLL for (int r = 0; r < kRows; ++r) sums.set(r, Isa::splat_int(0));
    for (; block * kBlock < (f + 1) * p.fold_padded; ++block) {
      for_count<4>([&](auto i) MF_ALWAYS_INLINE {
        add_octet<Isa, kRows>(w.halved, 4 * block + i, x, block * kBlock + i * kOctet, sums);
      });
      ahead.fetch();
    }
    for (; rest < w.rest_ends[f]; ++rest) add_octet<Isa, kRows>(w.rest, rest, x, rows.shifted_at + w.rest_at[rest], sums);
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
