// The same as linear_residues.h for up to 4 rows: bytes are decoded in registers, for every tile of rows.
//
// The activation takes w's sign, so |w| needs no room for an offset and activations are not cut off: sums of four pairs hold where
// norms do (byte_limits). Blocks that the layout marks, or where an activation's norm is larger, are summed pair by pair.
#pragma once

#include "linear_int8.h"
#include "residues.h"

namespace minifloat {
namespace {

// Up to 4 rows of activations as bytes, and by k as int16, for a k more, which is 0.
struct FewByteRows {
  std::vector<int8_t> bytes;   // (m, k_padded)
  std::vector<int16_t> by_k;   // (k_padded + 2, 4)

  explicit FewByteRows(const LinearArgs& a)  // of int16 digits
      : bytes(a.m * a.plan->k_padded), by_k(kFewRows * (a.plan->k_padded + 2)) {
    const int64_t k_padded = a.plan->k_padded;
    narrow_exchanged(static_cast<const int16_t*>(a.x.digits), int64_t(bytes.size()), bytes.data());
    for (int64_t m = 0; m < a.m; ++m) {
      const int8_t* row = bytes.data() + m * k_padded;
      for (int64_t k = 0; k < k_padded; ++k) by_k[kFewRows * k + m] = row[k];
    }
  }
};

// to (4, 16 outputs) = the activations of a panel's lists, times powers of two with signs.
void add_listed_few(const int16_t* by_k, const ResidueLists& lists, int64_t panel, int32_t* to) {
  constexpr int64_t kMost = 32767 / 128 / kResiduesATime * kResiduesATime;  // in an int16 sum
  for (int output = 0; output < kPanel; ++output) {
    __m128i total = _mm_setzero_si128();
    for (int bit = lists.bits - 1; bit >= 0; --bit) {
      for (int sign = 0; sign < 2; ++sign) {
        const int32_t* const begins = lists.begins + lists.list(panel, output, bit, sign);
        for (int64_t i = begins[0], end = begins[1]; i < end;) {
          const int64_t stop = std::min(end, i + kMost);
          __m128i sums[2] = {_mm_setzero_si128(), _mm_setzero_si128()};
          for (; i < stop; i += kResiduesATime) {
            MF_UNROLL for (int j = 0; j < kResiduesATime; ++j) {  // the upper half, of the next k, is not used
              const int16_t* const rows = by_k + int64_t(lists.at[i + j]) * kFewRows;
              sums[j % 2] = _mm_add_epi16(sums[j % 2], _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows)));
            }
          }
          const __m128i sum = _mm_slli_epi32(_mm_cvtepi16_epi32(_mm_add_epi16(sums[0], sums[1])), bit);
          total = sign ? _mm_sub_epi32(total, sum) : _mm_add_epi32(total, sum);
        }
      }
    }
    alignas(16) int32_t of_rows[kFewRows];
    _mm_store_si128(reinterpret_cast<__m128i*>(of_rows), total);
    for (int r = 0; r < kFewRows; ++r) to[r * kPanel + output] = of_rows[r];
  }
}

template <class Isa, int kRows, class Source>
void few_residues_tile(const TileCall& call, const FewByteRows& rows, const ResidueLists& lists, const ScaledPanel<Isa>& panel,
                       const Source& source, Ahead ahead, Ahead lists_ahead) {
  const LinearArgs& a = *call.args;
  const Plan& p = *a.plan;
  alignas(64) int32_t listed[kFewRows * kPanel];
  add_listed_few(rows.by_k.data(), lists, panel.first_output / kPanel, listed);
  const int8_t* x[kRows];
  MF_UNROLL for (int r = 0; r < kRows; ++r) x[r] = rows.bytes.data() + r * p.k_padded;
  TileOutputs<Isa, 1, kRows, false> outputs(a, &panel, 0);
  RegisterSums<Isa, kRows> sums(nullptr);
  MF_UNROLL for (int r = 0; r < kRows; ++r) sums.set(r, Isa::splat_int(0));
  for (int64_t block = 0; block < p.k_padded / kBlock; ++block) {
    add_guarded<Isa, Method{Method::kSigned, kGuardedDepth, true}, 1, kRows, 8, 1>(call, panel, &source, 2 * block, x, nullptr, sums);
    ahead.fetch();
    lists_ahead.fetch();
  }
  MF_UNROLL for (int r = 0; r < kRows; ++r) {
    const auto shifted = Isa::mul_int(sums.get(r), Isa::splat_int(1 << lists.bits));
    sums.set(r, Isa::add_int(shifted, Isa::load_ints(reinterpret_cast<const uint8_t*>(listed + r * kPanel))));
  }
  outputs.add_fold(0, 0, sums, 0);
  outputs.end_fold();
  outputs.finish_all();
}

template <class Isa, int kBits, int kRows>
void few_residues_rows(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end) {
  const Plan& p = *a.plan;
  const Layout l = layout_of(p);
  const FewByteRows rows(a);
  const TileCall call{&a, {}, {}, Scratch(0), blocks_of_large_norm(p, rows.bytes.data(), a.m)};
  const ResidueLists lists = residue_lists(p, a.weight);
  std::vector<float> scales(l.groups * kPanel);
  for (int64_t i = begin; i < end; ++i) {
    const ScaledPanel<Isa> panel(p, l, a.weight, i, scales.data());
    const PackedDigits<Isa, kBits, Lookup::kSignedTable, true> source(panel.codes, digits, 0);
    const uint16_t* const next = lists.of_panel(i + 1);
    const int64_t next_bytes = i + 1 < end ? (lists.of_panel(i + 2) - next) * int64_t(sizeof(*next)) : 0;
    few_residues_tile<Isa, kRows>(call, rows, lists, panel, source, {panel.codes + kAheadBytes, kBits * kRowBytes},
                                  {reinterpret_cast<const uint8_t*>(next), ahead_step(next_bytes, l.blocks)});
  }
}

template <class Isa, int kBits>
void few_residues_bits(const LinearArgs& a, const uint8_t* digits, int64_t begin, int64_t end) {
  switch (a.m) {
    case 1: return few_residues_rows<Isa, kBits, 1>(a, digits, begin, end);
    case 2: return few_residues_rows<Isa, kBits, 2>(a, digits, begin, end);
    case 3: return few_residues_rows<Isa, kBits, 3>(a, digits, begin, end);
    default: return few_residues_rows<Isa, kBits, 4>(a, digits, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
