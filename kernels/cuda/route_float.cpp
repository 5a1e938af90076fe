// The float contract: x as it is, times weights decoded to its type or, where that does not hold them, to float32.
#include "route.h"

namespace minifloat::cuda {
namespace {

constexpr int64_t kMaxLanesRows = 8, kLeastProductRows = 2048;
constexpr int64_t kMostTermsRows = 256;  // of sums of 16-bit numbers; docs/gpu.md counts

// A table's four k's are spread over 64, which may not hold two folds; zero points would need tables for each.
bool has_tables(const Plan& plan, const Layout& l) {
  return l.bits == 1 && !plan.weight.has_zero_point && l.chunks > 0 && (l.folds <= 1 || l.fold_padded >= 64);
}

}  // namespace

bool multiplies_float8(const Plan& plan, int64_t m, const Gpu& gpu) {
  Decoder decoder;
  int32_t center;
  return plan.carrier == kFloat && has_wgmma(gpu) && m > kMaxNarrowRows && whole_steps(layout_of(plan)) &&
         make_decoder(plan, kMathFloat8, decoder, center);
}

void choose_float(const Plan& plan, const Layout& l, int64_t m, ElementType x_type, const Gpu& gpu, Job& job) {
  job.math = x_type == kElementFloat32   ? kMathFloat32
             : x_type == kElementFloat16 ? kMathFloat16
             : x_type == kElementFloat8  ? kMathFloat8
                                         : kMathBFloat16;
  if (!make_decoder(plan, job.math, job.decoder, job.center)) {
    const bool some = m > kMaxLanesRows && m <= kMostTermsRows && (job.math == kMathFloat16 || job.math == kMathBFloat16);
    job.math = job.math == kMathFloat16 ? kMathFloat16x2 : kMathBFloat16x3;
    if (some && make_decoder(plan, job.math, job.decoder, job.center)) {
      job.route = kRouteNarrow;
      return;
    }
    job.math = kMathFloat32;
    make_decoder(plan, job.math, job.decoder, job.center);
  }
  job.route = job.math == kMathFloat32 ? (m <= kMaxLanesRows ? kRouteLanes : kRouteMultiply)
                                       : (m <= kMaxNarrowRows ? kRouteNarrow : kRouteWide);
  // A row at a time, so only one pays; where 16 bits hold the values linear_narrow is as short (docs/gpu.md counts).
  const bool tables_pay = gpu.preference == kPreferTables
                              ? m <= kMaxLanesRows
                              : gpu.preference == kPreferFastest && m == 1 && job.math == kMathFloat32;
  if (tables_pay && has_tables(plan, l)) job.route = kRouteTables, job.math = kMathFloat32;
  // One scale an output: others cannot wait for the end, nor be multiplied in before and fit 16 bits.
  const bool product_pays = gpu.preference == kPreferProduct || (gpu.preference == kPreferFastest && gpu.capability != kHopper &&
                                                                 m >= kLeastProductRows);
  if (product_pays && l.folds == 1 && l.chunks > 0 && (job.math == kMathFloat16 || job.math == kMathBFloat16))
    job.route = kRouteProduct;
  if (job.route == kRouteWide && has_wgmma(gpu)) job.route = kRouteWarpgroup;
}

}  // namespace minifloat::cuda
