// The float steps that end both contracts, one rounding each, in the order of docs/numerics.md.
#pragma once

#include "scales.cuh"

namespace minifloat::cuda {

MF_DEVICE int32_t weight_zero_point(const LinearParams& p, float offset) { return int32_t(offset + p.lowest); }

// The exact contract: value * scale of one fold, one output and one row of x.
// sum: of the fold's products of digits; it wraps as the hardware's sums do, and a fold's total fits.
MF_DEVICE float fold_product(const LinearParams& p, int64_t row, int fold, int x_group, uint32_t sum, float scale,
                             float zero_point) {
  if (p.zero_points || p.center) {
    const int32_t per_digit = p.center - (p.zero_points ? weight_zero_point(p, zero_point) : 0);
    sum += uint32_t(per_digit) * uint32_t(load_cached(p.x_sums + int64_t(fold) * p.x_rows + row));
  }
  const float value = mul(float(int32_t(sum)), p.unit);
  if (p.x_grouped) scale = mul(scale, load_cached(p.x_scales + int64_t(x_group) * p.x_rows + row));
  return mul(value, scale);
}

// The chain of these steps: feed it the sums of slots in the order of K.
struct Chain {
  float acc = 0;
  uint32_t sum = 0;
  int32_t fold = 0, slots_left, x_group = 0, folds_left;

  MF_DEVICE explicit Chain(const LinearParams& p) : slots_left(p.slots_per_fold), folds_left(p.folds_per_x_group) {}

  MF_DEVICE void add_slot(const LinearParams& p, int64_t row, uint32_t slot_sum, float scale, float zero_point) {
    sum += slot_sum;
    if (--slots_left) return;
    slots_left = p.slots_per_fold;
    if (fold >= p.folds) return;
    acc = add(acc, fold_product(p, row, fold, x_group, sum, scale, zero_point));
    sum = 0;
    ++fold;
    if (--folds_left == 0) folds_left = p.folds_per_x_group, ++x_group;
  }
};

// y[row, output] from the accumulated value: the scales that the loop left out, bias, one cast.
MF_DEVICE void finish(const LinearParams& p, int64_t row, int64_t output, float y) {
  if (p.x_scales && !p.x_grouped) y = mul(y, load_cached(p.x_scales + row));
  y = mul(y, p.weight_tensor_scale);
  if (p.x_tensor_scale) y = mul(y, load_cached(p.x_tensor_scale));
  if (p.bias) y = add(y, load_cached(p.bias + output));
  store_element(p.y, row * p.n + output, p.y_type, y);
}

// With a single fold the scale is one per output: raw place in the layout, for outputs of a panel.
struct OutputScale {
  float scale = 1, zero_point = 0;
  MF_DEVICE OutputScale(const LinearParams& p, int64_t panel, int row) {
    if (p.folds > 1 || p.groups == 0) return;
    scale = widen_scale(p.scales, panel * 16 + row, p.scale);
    if (p.zero_points) zero_point = widen_zero_point(p, p.zero_points, panel * 16 + row);
  }
};

// A single fold, all of its products summed.
MF_DEVICE void finish_whole(const LinearParams& p, int64_t row, int64_t output, uint32_t sum, const OutputScale& o) {
  finish(p, row, output, p.folds ? add(0.0f, fold_product(p, row, 0, 0, sum, o.scale, o.zero_point)) : 0.0f);
}
MF_DEVICE void finish_whole(const LinearParams& p, int64_t row, int64_t output, float sum, const OutputScale& o) {
  finish(p, row, output, mul(sum, o.scale));
}

}  // namespace minifloat::cuda
