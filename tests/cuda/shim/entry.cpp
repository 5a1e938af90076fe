// Test only: the ops of csrc/cuda.cpp with plain pointers, for ctypes.
#include <cstring>
#include <string>
#include <vector>

#include "cuda/job.h"

using namespace minifloat;

namespace {

const Plan& plan_of(const void* record) { return *static_cast<const Plan*>(record); }

}  // namespace

extern "C" {

int64_t mf_layout_bytes(const void* plan) { return cuda::layout_of(plan_of(plan)).bytes; }

int mf_pack(const void* plan, uint8_t* packed, uint8_t* scales, uint8_t* zero_points, uint8_t* weight) {
  return cuda::pack_weight(cuda::storage_params(plan_of(plan), packed, scales, zero_points, weight), nullptr);
}
int mf_restore(const void* plan, uint8_t* packed, uint8_t* scales, uint8_t* zero_points, uint8_t* weight) {
  return cuda::restore_weight(cuda::storage_params(plan_of(plan), packed, scales, zero_points, weight), nullptr);
}
int mf_dequantize(const void* plan, const uint8_t* weight, float* out) {
  return cuda::dequantize_weight(cuda::dequantize_params(plan_of(plan), weight, out), nullptr);
}

// Why not, or an empty string; valid until the next call.
const char* mf_unsupported(const void* plan) {
  static std::string message;
  message = cuda::unsupported(plan_of(plan));
  return message.c_str();
}

// -1: the route is to dequantize and multiply elsewhere. *route tells which way it went.
int mf_linear(const void* record, const uint8_t* weight, const void* x, int x_type, int64_t m, const float* bias, void* y,
              int* route, int* math) {
  const Plan& plan = plan_of(record);
  const cuda::Job job = cuda::make_job(plan, m, cuda::ElementType(x_type));
  *route = job.route, *math = job.math;
  if (job.route == cuda::kRouteMultiply) return -1;
  std::vector<uint4> workspace(job.workspace_bytes / 16 + 1, uint4{0x7fc0dead, 0x7fc0dead, 0x7fc0dead, 0x7fc0dead});
  return cuda::linear(plan, job, weight, x, cuda::ElementType(x_type), m, bias, y, workspace.data(), nullptr);
}
}
