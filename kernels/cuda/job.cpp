// A job from a plan: its contract chooses the kernels, here they get their tiles, their parts of K and their workspace.
#include "job.h"

#include <algorithm>

#include "job_params.h"
#include "route.h"
#include "warpgroup_space.h"
#include "wide_space.h"

namespace minifloat::cuda {
namespace {

constexpr int64_t kLeastChunksPerSplit = 4;

// Rows of x for one block: as many as fit, shared out evenly.
int columns_for(const Plan& plan, const Layout& l, const Job& job, int64_t m, const Gpu& gpu) {
  if (job.route == kRouteLanes) return int(m);
  if (job.route == kRouteWide || job.route == kRouteBits) return kWideRows;
  if (job.route == kRouteWarpgroup) {  // the larger tile reads less; it may leave a tenth of the GPU without work
    const int64_t blocks = ceil_div(l.n, kWarpgroupOutputs) * ceil_div(m, kMostTileRows);
    return job.math != kMathInt16 && m > kMostTileRows / 2 && 10 * blocks >= 9 * gpu.multiprocessors ? kMostTileRows : kMostTileRows / 2;
  }
  if (job.route != kRouteNarrow) return 0;
  // Two blocks share a multiprocessor where it has the room; a block gives 1 KiB to the system.
  const int limit = std::max(kSharedLimit, (gpu.shared_limit - 1024) / 2);
  LinearParams p = linear_params(plan, l, job, nullptr, m);
  p.columns = int(std::min(m, kMaxNarrowRows));
  while (p.columns > 1 && NarrowSpace(p, is_exact(job.math), l.bits, copied_ahead(job.math, l.bits)).bytes > limit) --p.columns;
  return int(ceil_div(m, ceil_div(m, p.columns)));  // blocks of even size
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
  static const char* const maths[] = {"int8", "int16", "float16", "bfloat16", "float32", "float8", "float16x2", "bfloat16x3"};
  return std::string(routes[job.route]) + " " + maths[job.math];
}

Job make_job(const Plan& plan, int64_t m, ElementType x_type, const Gpu& gpu) {
  Job job{};
  const Layout l = layout_of(plan);
  job.splits = 1;
  if (plan.carrier == kFloat) {
    choose_float(plan, l, m, x_type, gpu, job);
  } else {
    choose_exact(plan, l, m, gpu, job);
  }
  if (job.route == kRouteWide) {  // x's ring and a table of 8-bit codes together are more than some GPUs grant
    const WideSpace space(linear_params(plan, l, job, nullptr, m), is_exact(job.math), l.bits);
    if (space.bytes > gpu.shared_limit) job.route = kRouteNarrow;
  }
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
    const int64_t bytes = wanted == kElementFloat32 ? 4 : wanted == kElementFloat8 ? 1 : 2;
    if (job.spread && job.route != kRouteProduct) job.x_at = take(m * l.k_padded * bytes);
  }
  if (job.splits > 1) job.partial_at = take(job.splits * m * l.n * 4);
  return job;
}

}  // namespace minifloat::cuda
