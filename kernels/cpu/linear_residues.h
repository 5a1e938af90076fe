// y = x kFewRows w.T where a weight is a byte digit and, rarely, a residue (residues.h; carrier kInt16).
//
// linear_clamped.h multiplies the digits. Products with residues, which are listed by their power of two and sign, are sums of
// activations: 16 or 32 rows are added at a time, from a copy of x that has the rows of a k side by side.
#pragma once

#include "linear_residues_few.h"

namespace minifloat {
namespace {

// Activations of 16 or 32 rows that are added at a time.
constexpr int kRowsAtOnce = 16, kMoreRowsAtOnce = 32;

// Rows of activations as bytes, and the same with block_rows rows of each k side by side, and one k more, which is 0.
struct ByteRows {
  const int64_t block_rows, padded;  // m in multiples of block_rows
  std::vector<int8_t> bytes;         // (padded, k_padded)
  Scratch by_k;                      // (padded / block_rows, k_padded + 1, block_rows)
  const int64_t by_k_row;            // bytes of it for each row

  explicit ByteRows(const LinearArgs& a)  // of int16 digits
      : block_rows(a.m > kRowsAtOnce ? kMoreRowsAtOnce : kRowsAtOnce),
        padded(ceil_div(a.m, block_rows) * block_rows),
        bytes(padded * a.plan->k_padded),
        by_k(padded * (a.plan->k_padded + 1)),
        by_k_row(a.plan->k_padded + 1) {
    const int64_t k_padded = a.plan->k_padded;
    for (int64_t m = 0; m < a.m; ++m)
      narrow_exchanged(static_cast<const int16_t*>(a.x.digits) + m * k_padded, k_padded, bytes.data() + m * k_padded);
    for (int64_t m = 0; m < padded; m += kRowsAtOnce) {
      const int64_t within = m % block_rows;
      transpose_rows(bytes.data() + m * k_padded, k_padded, rows_by_k(m - within) + within, block_rows);
    }
  }
  int8_t* rows_by_k(int64_t m) const { return reinterpret_cast<int8_t*>(by_k.data) + m * by_k_row; }
};

// to (kRows, 16 outputs) = the activations of a panel's lists, by_k (k, kRows), times powers of two with signs.
template <int kRows>
void add_listed(const int8_t* by_k, const ResidueLists& lists, int64_t panel, int32_t* to) {
  constexpr int kParts = kRows / 16;
  for (int output = 0; output < kPanel; ++output) {
    const int32_t* const lists_of_output = lists.begins + lists.list(panel, output, 0, 0);
    const int32_t begin = lists_of_output[0], end = lists_of_output[2 * lists.bits];
    const uint16_t* const of_next_panel = lists.at + lists_of_output[kPanel * 2 * lists.bits];
    for (int32_t i = 0; i < end - begin; i += 32) __builtin_prefetch(of_next_panel + i, 0, 2);
    constexpr int64_t kMost = 32767 / 128 / kResiduesATime * kResiduesATime;  // in an int16 sum
    __m256i totals[2 * kParts];
    MF_UNROLL for (auto& total : totals) total = _mm256_setzero_si256();
    for (int bit = lists.bits - 1; bit >= 0; --bit) {
      for (int sign = 0; sign < 2; ++sign) {
        const int32_t* const begins = lists.begins + lists.list(panel, output, bit, sign);
        for (int64_t i = begins[0], end = begins[1]; i < end;) {
          const int64_t stop = std::min(end, i + kMost);
          __m256i sums[2 * kParts];
          MF_UNROLL for (auto& sum : sums) sum = _mm256_setzero_si256();
          for (; i < stop; i += kResiduesATime) {
            MF_UNROLL for (int j = 0; j < kResiduesATime; ++j) {
              const __m128i* const rows = reinterpret_cast<const __m128i*>(by_k + int64_t(lists.at[i + j]) * kRows);
              MF_UNROLL for (int part = 0; part < kParts; ++part) {
                auto& sum = sums[j % 2 * kParts + part];
                sum = _mm256_add_epi16(sum, _mm256_cvtepi8_epi16(_mm_loadu_si128(rows + part)));
              }
            }
          }
          MF_UNROLL for (int part = 0; part < kParts; ++part) {
            __m256i sum = _mm256_add_epi16(sums[part], sums[kParts + part]);
            if (sign) sum = _mm256_sub_epi16(_mm256_setzero_si256(), sum);
            const __m256i low = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum));
            const __m256i high = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum, 1));
            totals[2 * part] = _mm256_add_epi32(totals[2 * part], _mm256_slli_epi32(low, bit));
            totals[2 * part + 1] = _mm256_add_epi32(totals[2 * part + 1], _mm256_slli_epi32(high, bit));
          }
        }
      }
    }
    alignas(64) int32_t of_rows[kRows];
    MF_UNROLL for (int i = 0; i < 2 * kParts; ++i) _mm256_store_si256(reinterpret_cast<__m256i*>(of_rows) + i, totals[i]);
    for (int r = 0; r < kRows; ++r) to[r * kPanel + output] = of_rows[r];
  }
}

// What residues add to the sums of panels, for all rows of a call.
template <class Isa>
class ResidueSums {
  static constexpr int64_t kPanels = 4;  // at a time: activations by k come from the L2 cache once for all of them
  const ResidueLists lists_;
  const ByteRows& rows_;
  const int64_t end_;
  int64_t first_ = 0, done_ = 0;
  Scratch sums_;  // (kPanels, padded, 16)

 public:
  ResidueSums(const LinearArgs& a, const ByteRows& rows, int64_t end)
      : lists_(residue_lists(*a.plan, a.weight)), rows_(rows), end_(end), sums_(kPanels * rows.padded * kRowBytes) {}

  void begin_panel(int64_t panel) {
    if (panel < done_) return;
    first_ = panel;
    done_ = std::min(panel + kPanels, end_);
    for (int64_t m = 0; m < rows_.padded; m += rows_.block_rows) {
      for (int64_t p = first_; p < done_; ++p) {
        const auto add = rows_.block_rows == kRowsAtOnce ? add_listed<kRowsAtOnce> : add_listed<kMoreRowsAtOnce>;
        add(rows_.rows_by_k(m), lists_, p, sums_of(p, m));
      }
    }
  }
  MF_INLINE typename Isa::Ints total(typename Isa::Ints digits, int64_t panel, int64_t m) const {
    const auto shifted = Isa::mul_int(digits, Isa::splat_int(1 << lists_.bits));
    return Isa::add_int(shifted, Isa::load_ints(reinterpret_cast<const uint8_t*>(sums_of(panel, m))));
  }

 private:
  int32_t* sums_of(int64_t panel, int64_t m) const {
    return reinterpret_cast<int32_t*>(sums_.data) + ((panel - first_) * rows_.padded + m) * kPanel;
  }
};

template <class Isa, int kBits>
void linear_residues_bits(const LinearArgs& exchanged, int64_t begin, int64_t end) {
  constexpr Lookup kLookup = kBits == 6 ? Lookup::kSignedTable : Lookup::kTable;  // each measured
  const Plan& p = *exchanged.plan;
  const int bits = residue_bits(p);
  uint8_t digits[1 << kBits];
  for (int code = 0; code < (1 << kBits); ++code) digits[code] = uint8_t(byte_digit(p.weight.grid[code], bits).digit);
  if constexpr (kBits <= 6) {
    if (exchanged.m <= kFewRows && exchanged.choice.decode == Decode::kRegisters)
      return few_residues_bits<Isa, kBits>(exchanged, digits, begin, end);
  }
  ByteRows rows(exchanged);
  LinearArgs a = exchanged;
  a.x.digits = rows.bytes.data();
  linear_clamped<Isa, kBits, kLookup>(a, digits, begin, end, ResidueSums<Isa>(a, rows, end));
}

template <class Isa>
void linear_residues(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->weight.bits) {
    case 5: return linear_residues_bits<Isa, 5>(a, begin, end);
    case 6: return linear_residues_bits<Isa, 6>(a, begin, end);
    default: return linear_residues_bits<Isa, 7>(a, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
