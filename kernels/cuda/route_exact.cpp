// The exact contract: integers of both sides as one or two 8-bit digits, or as bits.
#include <cstdlib>

#include "route.h"

namespace minifloat::cuda {

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

void choose_exact(const Plan& plan, const Layout& l, int64_t m, const Gpu& gpu, Job& job) {
  job.math = plan.carrier == kInt8 ? kMathInt8 : kMathInt16;
  make_decoder(plan, job.math, job.decoder, job.center);
  const bool few = m <= kMaxNarrowRows;
  job.route = few ? kRouteNarrow : kRouteWide;
  // Bits: eight times the rate of int8 by NVIDIA's table for sm_80, of which up to four products take half. No other GPU's
  // rate is published.
  const bool bits_pay = gpu.preference == kPreferBits || (gpu.preference == kPreferFastest && gpu.capability == kAmpere && !few);
  if (bits_pay) job.digits = make_bit_digits(plan, l);
  if (job.digits.x_planes) job.route = kRouteBits, job.center = job.digits.weight_lowest;
  if (job.route == kRouteWide && has_wgmma(gpu) && whole_steps(l)) job.route = kRouteWarpgroup;
  if (job.route == kRouteWide && job.math == kMathInt16) job.route = kRouteNarrow;
}

}  // namespace minifloat::cuda
