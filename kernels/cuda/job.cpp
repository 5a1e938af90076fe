#include "job.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "linear.h"
#include "product.h"
#include "tables_space.h"
#include "warpgroup_space.h"
#include "wide_space.h"

namespace minifloat::cuda {
namespace {

constexpr int64_t kMaxNarrowRows = 16, kMaxOrderedColumns = 8, kMaxLanesRows = 8;
constexpr int64_t kLeastChunksPerSplit = 4, kLeastProductRows = 2048;

constexpr int kAmpere = 80;
constexpr int kHopper = 90;  // of whose instructions linear_warpgroup is made; newer GPUs do not have them

// Whether linear_warpgroup may run.
bool has_wgmma(const Gpu& gpu) { return gpu.capability == kHopper && gpu.preference != kPreferWide; }

bool is_exact(Math math) { return math == kMathInt8 || math == kMathInt16; }

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
  p.slots = kChunk / p.slot_k;
  p.slots_per_fold = int(l.fold_padded / p.slot_k);
  const bool grouped = plan.weight.granularity == kGroup && l.fold;
  p.slots_per_group = grouped ? int(plan.weight.group_size / l.fold) * p.slots_per_fold : 1 << 30;
  p.x_grouped = is_exact(job.math) && plan.activation.granularity == kGroup;
  p.folds_per_x_group = p.x_grouped && l.fold ? int(plan.activation.group_size / l.fold) : 1 << 30;
  p.ordered = is_exact(job.math) && l.folds > 1;
  p.center = job.center;
  p.zero_point_mask = plan.weight.code_flip;
  p.lowest = plan.weight.lowest;
  p.unit = is_exact(job.math) ? std::ldexp(1.0f, plan.unit) : 1.0f;
  p.weight_tensor_scale = plan.weight.tensor_scale;
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

// Rows of x for one block: as many as fit, and no more than there are.
int columns_for(const Plan& plan, const Layout& l, const Job& job, int64_t m, const Gpu& gpu) {
  if (job.route == kRouteLanes) return int(m);
  if (job.route == kRouteWide || job.route == kRouteBits) return kWideRows;
  if (job.route == kRouteWarpgroup) {  // the larger tile reads less; it may leave a tenth of the GPU without work
    const int64_t blocks = ceil_div(l.n, kWarpgroupOutputs) * ceil_div(m, kMostTileRows);
    return job.math != kMathInt16 && m > kMostTileRows / 2 && 10 * blocks >= 9 * gpu.multiprocessors ? kMostTileRows : kMostTileRows / 2;
  }
  if (job.route != kRouteNarrow) return 0;
  LinearParams p = linear_params(plan, l, job, nullptr, m);
  p.columns = int(std::min(m, p.ordered ? kMaxOrderedColumns : kMaxNarrowRows));
  while (p.columns > 1 && NarrowSpace(p, is_exact(job.math), l.bits).bytes > kSharedLimit) --p.columns;
  return p.columns;
}

// One product of linear_warpgroup takes 32 bytes of K, which may not hold two folds.
bool whole_steps(const Layout& l) { return l.folds <= 1 || l.fold_padded >= 32; }

// A table's four k's are spread over 64, which may not hold two folds; zero points would need tables for each.
bool has_tables(const Plan& plan, const Layout& l) {
  return l.bits == 1 && !plan.weight.has_zero_point && l.chunks > 0 && (l.folds <= 1 || l.fold_padded >= 64);
}

// The type of x that the kernels of the float contract read.
ElementType operand_type(const Job& job, ElementType x_type) {
  return job.math == kMathFloat32 && job.route != kRouteTables ? kElementFloat32 : x_type;
}

cudaError_t spread_x(const Plan& plan, const Layout& l, const Job& job, const void* x, ElementType x_type, int64_t m, void* out,
                     cudaStream_t stream) {
  SpreadParams s{};
  s.x = x, s.x_type = x_type, s.m = m, s.k = plan.k, s.layout = l, s.out = out;
  s.out_type = operand_type(job, x_type);
  s.operand_order = job.route == kRouteWarpgroup;
  return spread_activations(s, stream);
}

// Chunks of K for each block, where the order of float additions is free and outputs alone do not fill the GPU.
int chunks_per_split(const Layout& l, const Job& job, int64_t m, const Gpu& gpu) {
  const bool wide = job.route == kRouteWide || job.route == kRouteBits;
  if (!(wide || job.route == kRouteWarpgroup) || (is_exact(job.math) && l.folds > 1) || l.chunks == 0) return int(l.chunks);
  const int64_t blocks = ceil_div(l.n, wide ? 16 * kWideWarps : kWarpgroupOutputs) * ceil_div(m, job.columns);
  const int64_t wanted = (wide ? 2 : 1) * gpu.multiprocessors;  // at least so many run at the same time
  const int64_t most = std::max<int64_t>(1, l.chunks / kLeastChunksPerSplit);
  const int64_t splits = std::clamp<int64_t>(wanted / blocks, 1, most);
  const int64_t whole = l.folds > 1 ? std::max<int64_t>(1, l.fold_padded / kChunk) : 1;  // a fold is not cut
  return int(ceil_div(ceil_div(l.chunks, splits), whole) * whole);
}

}  // namespace

bool parse_preference(const std::string& name, Preference& preference) {
  if (name.empty()) preference = kPreferFastest;
  else if (name == "usual") preference = kPreferUsual;
  else if (name == "bits") preference = kPreferBits;
  else if (name == "tables") preference = kPreferTables;
  else if (name == "product") preference = kPreferProduct;
  else if (name == "wide") preference = kPreferWide;
  else return false;
  return true;
}

std::string name_of(const Job& job) {
  static const char* const routes[] = {"narrow", "wide", "lanes", "multiply", "warpgroup", "bits", "tables", "product"};
  static const char* const maths[] = {"int8", "int16", "float16", "bfloat16", "float32", "float8"};
  return std::string(routes[job.route]) + " " + maths[job.math];
}

std::string unsupported(const Plan& plan) {
  ScaleCode scale;
  if (!make_scale_code(plan.weight, scale)) return "the CUDA kernels cannot decode this format of scales: use backend='cpu'";
  if (plan.carrier == kFloat) return "";
  if (plan.carrier != kInt8 && plan.carrier != kInt16)
    return "exact sums of these two formats need more than 32 bits, which the CUDA kernels do not have: use backend='cpu' or "
           "'reference', narrower formats, or activation=None";
  const Math math = plan.carrier == kInt8 ? kMathInt8 : kMathInt16;
  Decoder decoder;
  int32_t center;
  bool fits = make_decoder(plan, math, decoder, center);
  for (int code = 0; code < 1 << plan.activation.bits; ++code) fits &= std::abs(plan.activation.grid[code]) <= 32639;
  if (plan.activation.has_zero_point && plan.activation.highest - plan.activation.lowest > 32639) fits = false;
  return fits ? "" : "the integers of these formats do not fit two 8-bit digits: use backend='cpu' or activation=None";
}

bool multiplies_float8(const Plan& plan, int64_t m, const Gpu& gpu) {
  Decoder decoder;
  int32_t center;
  return plan.carrier == kFloat && has_wgmma(gpu) && m > kMaxNarrowRows && whole_steps(layout_of(plan)) &&
         make_decoder(plan, kMathFloat8, decoder, center);
}

Job make_job(const Plan& plan, int64_t m, ElementType x_type, const Gpu& gpu) {
  Job job{};
  const Layout l = layout_of(plan);
  job.splits = 1;
  if (plan.carrier != kFloat) {
    job.math = plan.carrier == kInt8 ? kMathInt8 : kMathInt16;
    make_decoder(plan, job.math, job.decoder, job.center);
    const bool few = m <= (l.folds > 1 ? kMaxOrderedColumns : kMaxNarrowRows);
    job.route = few ? kRouteNarrow : kRouteWide;
    // Bits: eight times the rate of int8 by NVIDIA's table for sm_80, of which up to four products take half. No other GPU's
    // rate is published.
    const bool bits_pay = gpu.preference == kPreferBits || (gpu.preference == kPreferFastest && gpu.capability == kAmpere && !few);
    if (bits_pay) job.digits = make_bit_digits(plan, l);
    if (job.digits.x_planes) job.route = kRouteBits, job.center = job.digits.weight_lowest;
  } else {
    job.math = x_type == kElementFloat32   ? kMathFloat32
               : x_type == kElementFloat16 ? kMathFloat16
               : x_type == kElementFloat8  ? kMathFloat8
                                           : kMathBFloat16;
    if (!make_decoder(plan, job.math, job.decoder, job.center)) {
      job.math = kMathFloat32;
      make_decoder(plan, job.math, job.decoder, job.center);
    }
    job.route = job.math == kMathFloat32 ? (m <= kMaxLanesRows ? kRouteLanes : kRouteMultiply)
                                         : (m <= kMaxNarrowRows ? kRouteNarrow : kRouteWide);
    // A row at a time, so only one pays; with 16-bit x and consecutive integers linear_narrow is as short (docs/gpu.md counts).
    const bool costly = job.math == kMathFloat32 || job.decoder.kind == kDecodeTable;
    const bool tables_pay =
        gpu.preference == kPreferTables ? m <= kMaxLanesRows : gpu.preference == kPreferFastest && m == 1 && costly;
    if (tables_pay && has_tables(plan, l)) job.route = kRouteTables, job.math = kMathFloat32;
    // One scale an output: others cannot wait for the end, nor be multiplied in before and fit 16 bits.
    const bool product_pays = gpu.preference == kPreferProduct || (gpu.preference == kPreferFastest && gpu.capability != kHopper &&
                                                                   m >= kLeastProductRows);
    if (product_pays && l.folds == 1 && l.chunks > 0 && (job.math == kMathFloat16 || job.math == kMathBFloat16))
      job.route = kRouteProduct;
  }
  if (job.route == kRouteWide && has_wgmma(gpu) && (!is_exact(job.math) || whole_steps(l))) job.route = kRouteWarpgroup;
  if (job.route == kRouteWide && job.math == kMathInt16) job.route = kRouteNarrow;
  job.columns = columns_for(plan, l, job, m, gpu);
  job.chunks_per_split = chunks_per_split(l, job, m, gpu);
  job.splits = l.chunks ? int(ceil_div(l.chunks, job.chunks_per_split)) : 1;

  job.x_rows = job.columns ? ceil_div(m, job.columns) * job.columns : m;
  if (job.x_rows % 2) ++job.x_rows;  // 8 bytes of sums and scales are read at once
  const auto take = [&](int64_t bytes) {
    const int64_t at = job.workspace_bytes;
    job.workspace_bytes += ceil_div(bytes, 256) * 256;
    return at;
  };
  if (is_exact(job.math)) {
    job.x_at = take(job.route == kRouteBits ? m * l.k_padded / 8 * job.digits.x_planes : m * l.k_padded);
    job.x_high_at = job.math == kMathInt16 ? take(m * l.k_padded) : 0;
    job.sums_at = take(job.x_rows * l.folds * 4);
    job.scales_at = take(job.x_rows * activation_groups(plan) * 4);
    job.tensor_scale_at = take(4);
    job.extremes_at = take(8);
  } else if (job.route != kRouteMultiply) {
    const ElementType wanted = operand_type(job, x_type);
    job.spread = l.k != l.k_padded || wanted != x_type || job.route == kRouteWarpgroup;
    if (job.spread && job.route != kRouteProduct) job.x_at = take(m * l.k_padded * (wanted == kElementFloat32 ? 4 : wanted == kElementFloat8 ? 1 : 2));
  }
  if (job.splits > 1) job.partial_at = take(job.splits * m * l.n * 4);
  return job;
}

cudaError_t linear(const Plan& plan, const Job& job, const uint8_t* weight, const void* x, ElementType x_type, int64_t m,
                   const float* bias, void* y, void* workspace, cudaStream_t stream) {
  const Layout l = layout_of(plan);
  char* const space = static_cast<char*>(workspace);
  LinearParams p = linear_params(plan, l, job, weight, m);
  p.bias = bias, p.y = y, p.y_type = x_type == kElementFloat8 ? kElementBFloat16 : x_type, p.partial = space + job.partial_at;
  if (is_exact(job.math)) {
    const QuantizeParams q = quantize_params(plan, l, job, x, x_type, m, space);
    const cudaError_t error = quantize_activations(q, stream);
    if (error != cudaSuccess) return error;
    p.x = job.route == kRouteBits ? static_cast<const void*>(q.bits) : q.low, p.x_high = q.high, p.x_sums = q.sums, p.x_scales = q.scales, p.x_tensor_scale = q.tensor_scale;
  } else if (job.spread) {
    const cudaError_t error = spread_x(plan, l, job, x, x_type, m, space + job.x_at, stream);
    if (error != cudaSuccess) return error;
    p.x = space + job.x_at;
  } else {
    p.x = x;
  }
  switch (job.route) {
    case kRouteNarrow:
      switch (job.math) {
        case kMathInt8: return linear_narrow_int8(p, l.bits, stream);
        case kMathInt16: return linear_narrow_int16(p, l.bits, stream);
        case kMathFloat16: return linear_narrow_float16(p, l.bits, stream);
        default: return linear_narrow_bfloat16(p, l.bits, stream);
      }
    case kRouteWide:
      switch (job.math) {
        case kMathInt8: return linear_wide_int8(p, l.bits, stream);
        case kMathFloat16: return linear_wide_float16(p, l.bits, stream);
        default: return linear_wide_bfloat16(p, l.bits, stream);
      }
    case kRouteWarpgroup:
      switch (job.math) {
        case kMathInt8: return linear_warpgroup_int8(p, l.bits, stream);
        case kMathInt16: return linear_warpgroup_int16(p, l.bits, stream);
        case kMathFloat8: return linear_warpgroup_float8(p, l.bits, stream);
        case kMathFloat16: return linear_warpgroup_float16(p, l.bits, stream);
        default: return linear_warpgroup_bfloat16(p, l.bits, stream);
      }
    case kRouteBits: return linear_bits_planes(bits_params(l, job, p), l.bits, job.digits.x_planes, stream);
    case kRouteTables: return linear_tables_float32(tables_params(plan, p), stream);
    case kRouteLanes: return linear_lanes_float32(p, l.bits, stream);
    default: return cudaErrorNotSupported;
  }
}

cudaError_t prepare_product(const Plan& plan, const Job& job, const uint8_t* weight, const void* x, ElementType x_type, int64_t m,
                            void* decoded, void* spread, cudaStream_t stream) {
  const Layout l = layout_of(plan);
  if (job.spread) {
    const cudaError_t error = spread_x(plan, l, job, x, x_type, m, spread, stream);
    if (error != cudaSuccess) return error;
  }
  const ProductParams p{linear_params(plan, l, job, weight, m), static_cast<uint16_t*>(decoded)};
  return job.math == kMathFloat16 ? decode_float16(p, l.bits, stream) : decode_bfloat16(p, l.bits, stream);
}

cudaError_t finish_product(const Plan& plan, const Job& job, const uint8_t* weight, ElementType x_type, int64_t m, float* product,
                           const float* bias, void* y, cudaStream_t stream) {
  LinearParams p = linear_params(plan, layout_of(plan), job, weight, m);
  p.bias = bias, p.y = y, p.y_type = x_type, p.partial = product;
  return finish_float32(p, stream);
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
