// Starts a job's kernels: x made ready, then the linear kernels of its route.
#include "job_params.h"
#include "linear.h"
#include "product.h"
#include "route.h"

namespace minifloat::cuda {

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
    p.x = job.route == kRouteBits ? static_cast<const void*>(q.bits) : q.low, p.x_high = q.high;
    p.x_sums = q.sums, p.x_scales = q.scales, p.x_tensor_scale = q.tensor_scale;
  } else if (job.spread) {
    const cudaError_t error = spread_activations(spread_params(plan, l, job, x, x_type, m, space + job.x_at), stream);
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
        case kMathFloat16x2: return linear_narrow_float16x2(p, l.bits, stream);
        case kMathBFloat16x3: return linear_narrow_bfloat16x3(p, l.bits, stream);
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
    const cudaError_t error = spread_activations(spread_params(plan, l, job, x, x_type, m, spread), stream);
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

}  // namespace minifloat::cuda
