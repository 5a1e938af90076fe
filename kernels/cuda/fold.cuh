// The end of a fold for a lane that holds tiles of sums as mma.sync leaves them: outputs g and g + 8 of a panel, and rows
// 2 t, 2 t + 1 of x of each tile of eight.
#pragma once

#include "finish.cuh"
#include "multiply.cuh"

namespace minifloat::cuda {

template <int kMath>
struct FoldEnd {
  static constexpr bool kExact = Traits<kMath>::kExact;
  using Sum = typename Traits<kMath>::Sum;
  float scale[2];
  int32_t per_digit[2];
  bool corrects;
  const int32_t* x_sums;
  const float* x_scales;

  // scales: of output g in the slot that ends the fold; row: the lane's first of x. Rows past the last are there to be
  // read (x_rows), and are not stored.
  MF_DEVICE FoldEnd(const LinearParams& p, const float* scales, int64_t row, int fold, int x_group)
      : scale{scales[0], scales[8]}, per_digit{p.center, p.center}, corrects(kExact && (p.zero_points || p.center)) {
    x_sums = p.x_sums + int64_t(fold) * p.x_rows + row;
    x_scales = p.x_scales + int64_t(x_group) * p.x_rows + row;
    if (kExact && p.zero_points) {
#pragma unroll
      for (int r = 0; r < 2; ++r) per_digit[r] -= weight_zero_point(p, scales[p.slots * 16 + 8 * r]);
    }
  }

  // Sums need no correction and scales of x come later: then a tile is four operations a sum.
  MF_DEVICE bool plain(const LinearParams& p) const { return !kExact || (!corrects && !p.x_grouped); }

  // The sums of tile i, times their scales, onto the totals.
  template <bool kPlain>
  MF_DEVICE void add_tile(const LinearParams& p, int i, const Sum (&sums)[4], float (&totals)[4]) const {
    if constexpr (kExact) {  // as fold_product
      uint2 x_sum{0, 0}, x_scale{0, 0};
      if (!kPlain && corrects) x_sum = load_cached(reinterpret_cast<const uint2*>(x_sums + 8 * i));
      if (!kPlain && p.x_grouped) x_scale = load_cached(reinterpret_cast<const uint2*>(x_scales + 8 * i));
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t correction = kPlain ? 0 : uint32_t(per_digit[j / 2]) * (j % 2 ? x_sum.y : x_sum.x);
        const float value = mul(float(int32_t(sums[j] + correction)), p.unit);
        const float x = float_of(j % 2 ? x_scale.y : x_scale.x);
        totals[j] = add(totals[j], mul(value, !kPlain && p.x_grouped ? mul(scale[j / 2], x) : scale[j / 2]));
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j) totals[j] += sums[j] * scale[j / 2];
    }
  }
};

}  // namespace minifloat::cuda
