// How a plan's contract chooses its kernels: what make_job asks of route_exact.cpp and route_float.cpp.
#pragma once

#include "job.h"

namespace minifloat::cuda {

constexpr int64_t kMaxNarrowRows = 16;

constexpr int kAmpere = 80;
constexpr int kHopper = 90;  // of whose instructions linear_warpgroup is made; newer GPUs do not have them

inline bool is_exact(Math math) { return math == kMathInt8 || math == kMathInt16; }

// Whether linear_warpgroup may run.
inline bool has_wgmma(const Gpu& gpu) { return gpu.capability == kHopper && gpu.preference != kPreferWide; }

// One product of linear_warpgroup takes 32 bytes of K, which may not hold two folds.
inline bool whole_steps(const Layout& l) { return l.folds <= 1 || l.fold_padded >= 32; }

// These set the job's math and route, and how its kernels decode.
void choose_exact(const Plan& plan, const Layout& l, int64_t m, const Gpu& gpu, Job& job);
void choose_float(const Plan& plan, const Layout& l, int64_t m, ElementType x_type, const Gpu& gpu, Job& job);

}  // namespace minifloat::cuda
