#include "job_params.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "route.h"

namespace minifloat::cuda {

LinearParams linear_params(const Plan& plan, const Layout& l, const Job& job, const uint8_t* weight, int64_t m) {
  LinearParams p{};
  p.codes = weight, p.scales = weight + l.scales_at;
  p.zero_points = plan.weight.has_zero_point ? weight + l.zero_points_at : nullptr;
  p.m = m, p.n = l.n, p.k_padded = l.k_padded, p.panel_bytes = l.panel_bytes, p.x_rows = job.x_rows;
  p.chunks = int(l.chunks), p.folds = int(l.folds), p.groups = int(l.groups);
  p.columns = job.columns, p.splits = job.splits, p.chunks_per_split = job.chunks_per_split;
  p.scale_bytes = l.scale_bytes;
  make_scale_code(plan.weight, p.scale);
  p.slot_k = int(std::min<int64_t>(l.fold_padded, kChunk));
  p.slot_shift = std::countr_zero(uint32_t(p.slot_k));
  p.slots = kChunk / p.slot_k;
  p.slots_per_fold = int(l.fold_padded / p.slot_k);
  const bool grouped = plan.weight.granularity == kGroup && l.fold;
  p.slots_per_group = grouped ? int(plan.weight.group_size / l.fold) * p.slots_per_fold : 1 << 30;
  p.group_of = divisor_of(p.slots_per_group);
  p.x_grouped = is_exact(job.math) && plan.activation.granularity == kGroup;
  p.folds_per_x_group = p.x_grouped && l.fold ? int(plan.activation.group_size / l.fold) : 1 << 30;
  p.x_group_of = divisor_of(p.folds_per_x_group);
  p.ordered = is_exact(job.math) && l.folds > 1;
  p.center = job.center;
  p.zero_point_mask = plan.weight.code_flip;
  p.lowest = plan.weight.lowest;
  p.unit = is_exact(job.math) ? std::ldexp(1.0f, plan.unit) : 1.0f;
  p.weight_tensor_scale = plan.weight.tensor_scale;
  if (job.math == kMathFloat16x2) p.weight_tensor_scale = std::ldexp(p.weight_tensor_scale, -job.center);
  p.decoder = job.decoder;
  return p;
}

BitsParams bits_params(const Layout& l, const Job& job, const LinearParams& linear) {
  BitsParams p{linear};
  const BitDigits& d = job.digits;
  std::copy(&d.terms[0][0], &d.terms[0][0] + kMostBitPlanes * 4, &p.terms[0][0]);
  p.product = d.x_step * d.weight_step, p.per_digit = d.x_lowest * d.weight_step;
  p.padding = int(l.fold_padded - l.fold) * d.stored_zero;
  return p;
}

TablesParams tables_params(const Plan& plan, const LinearParams& linear) {
  TablesParams p{linear};
  for (int code = 0; code < 2; ++code) p.values[code] = plan.weight.values[code ^ plan.weight.code_flip];
  return p;
}

QuantizeParams quantize_params(const Plan& plan, const Layout& l, const Job& job, const void* x, ElementType x_type,
                               int64_t m, char* workspace) {
  QuantizeParams q{};
  const Operand& a = plan.activation;
  q.x = x, q.x_type = x_type, q.m = m, q.k = plan.k, q.k_padded = l.k_padded, q.x_rows = job.x_rows;
  q.digits_per_value = job.math == kMathInt16 ? 2 : 1;
  q.fold = int(l.fold), q.fold_padded = int(l.fold_padded), q.folds = int(l.folds);
  q.slot_k = int(std::min<int64_t>(l.fold_padded, kChunk)), q.slots_per_fold = int(l.fold_padded / q.slot_k);
  q.groups = int(activation_groups(plan)), q.grouped = a.granularity == kGroup;
  q.group_k = q.grouped ? a.group_size : plan.k;
  q.low = reinterpret_cast<int8_t*>(workspace + job.x_at), q.high = reinterpret_cast<int8_t*>(workspace + job.x_high_at);
  q.sums = reinterpret_cast<int32_t*>(workspace + job.sums_at);
  q.scales = reinterpret_cast<float*>(workspace + job.scales_at);
  q.per_tensor = a.granularity == kTensor;
  if (a.scale_kind == kTwoLevel) q.tensor_scale = reinterpret_cast<float*>(workspace + job.tensor_scale_at);
  if (a.scale_kind == kTwoLevel || q.per_tensor) q.extremes = reinterpret_cast<uint32_t*>(workspace + job.extremes_at);
  if (job.route == kRouteBits) {
    q.planes = job.digits.x_planes, q.weight_bits = l.bits, q.lowest = job.digits.x_lowest;
    q.reciprocal = int(ceil_div(1 << 16, job.digits.x_step));
    q.bits = reinterpret_cast<uint32_t*>(workspace + job.x_at);
  }
  Rounding& r = q.rounding;
  r.encode_kind = a.encode_kind, r.scale_kind = a.scale_kind, r.has_zero_point = a.has_zero_point, r.is_signed = a.is_signed;
  r.scale_exponent = a.scale_exponent, r.mantissa_bits = a.mantissa_bits, r.min_exponent = a.min_exponent;
  r.scale_max = a.scale_max, r.lowest = a.lowest, r.highest = a.highest, r.to_grid = std::ldexp(1.0f, -a.unit);
  std::copy(a.thresholds, a.thresholds + 256, r.thresholds);
  std::copy(a.scale_thresholds, a.scale_thresholds + 256, r.scale_thresholds);
  for (int rank = 0; rank < 256; ++rank) {
    r.grid[rank] = int16_t(a.grid[a.codes[rank]]);
  }
  if (a.scale_kind == kTwoLevel) {
    float* end = std::copy_if(a.scale_values, a.scale_values + 256, r.scale_values, [](float v) { return v > 0; });
    std::sort(r.scale_values, end);
    r.largest_scale = end[-1];
  }
  return q;
}

ElementType operand_type(const Job& job, ElementType x_type) {
  return job.math == kMathFloat32 && job.route != kRouteTables ? kElementFloat32 : x_type;
}

SpreadParams spread_params(const Plan& plan, const Layout& l, const Job& job, const void* x, ElementType x_type, int64_t m, void* out) {
  SpreadParams s{};
  s.x = x, s.x_type = x_type, s.m = m, s.k = plan.k, s.layout = l, s.out = out;
  s.out_type = operand_type(job, x_type);
  s.operand_order = job.route == kRouteWarpgroup;
  return s;
}

StorageParams storage_params(const Plan& plan, uint8_t* packed, uint8_t* scales, uint8_t* zero_points, uint8_t* weight) {
  StorageParams s{};
  s.layout = layout_of(plan);
  s.code_flip = plan.weight.code_flip;
  s.per_tensor = plan.weight.granularity == kTensor;
  s.has_zero_points = plan.weight.has_zero_point;
  s.packed_row_bytes = ceil_div(plan.k * plan.weight.bits, 8);
  s.packed = packed, s.scales = scales, s.zero_points = zero_points, s.weight = weight;
  return s;
}

DequantizeParams dequantize_params(const Plan& plan, const uint8_t* weight, float* out) {
  DequantizeParams d{};
  d.layout = layout_of(plan);
  d.weight = weight, d.out = out;
  make_scale_code(plan.weight, d.scale);
  d.has_zero_points = plan.weight.has_zero_point;
  d.tensor_scale = plan.weight.tensor_scale;
  for (int code = 0; code < 256; ++code) {
    d.values[code] = plan.weight.values[code ^ plan.weight.code_flip];
    d.zero_values[code] = plan.weight.values[code];
  }
  return d;
}

}  // namespace minifloat::cuda
