// Test only: the ops of csrc/cuda.cpp with plain pointers, for ctypes.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "cuda/job.h"
#include "cuda/ptx.cuh"

using namespace minifloat;

namespace {

const Plan& plan_of(const void* record) { return *static_cast<const Plan*>(record); }

// A GPU of that compute capability; sets what the launchers may take. Sizes are those of the CUDA programming guide.
cuda::Gpu gpu_of(int capability, int multiprocessors, cuda::Preference preference) {
  shim::shared_limit = (capability == 80 ? 163 : capability == 90 || capability == 100 ? 227 : 99) << 10;
  return {capability, multiprocessors, shim::shared_limit, preference};
}

// Bytes that start as NaN and end, but for alignment to 16, where the process may not read or write.
struct Guarded {
  size_t page = sysconf(_SC_PAGESIZE), size;
  char* memory;
  char* data;
  explicit Guarded(size_t bytes) : size((bytes + page - 1) / page * page) {
    memory = static_cast<char*>(mmap(nullptr, size + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    mprotect(memory + size, page, PROT_NONE);
    data = memory + size - (bytes + 15) / 16 * 16;
    std::memset(data, 0xff, bytes);
  }
  ~Guarded() { munmap(memory, size + page); }
};

// As linear_by_product of csrc/cuda.cpp, with a plain loop for cuBLAS.
int by_product(const Plan& plan, const cuda::Job& job, const uint8_t* weight, const void* x, cuda::ElementType type, int64_t m,
               const float* bias, void* y) {
  const int64_t k = cuda::layout_of(plan).k_padded;
  const Guarded decoded(plan.n * k * 2), spread(m * k * 2), product(m * plan.n * 4);
  const int error = cuda::prepare_product(plan, job, weight, x, type, m, decoded.data, spread.data, nullptr);
  if (error) return error;
  float* const sums = reinterpret_cast<float*>(product.data);
  for (int64_t row = 0; row < m; ++row)
    for (int64_t output = 0; output < plan.n; ++output) {
      float sum = 0;
      for (int64_t i = 0; i < k; ++i)
        sum += cuda::load_element(job.spread ? spread.data : x, row * k + i, type) * cuda::load_element(decoded.data, output * k + i, type);
      sums[row * plan.n + output] = sum;
    }
  return cuda::finish_product(plan, job, weight, type, m, sums, bias, y, nullptr);
}

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

int mf_multiplies_float8(const void* plan, int64_t m, int capability) {
  return cuda::multiplies_float8(plan_of(plan), m, gpu_of(capability, 132, cuda::kPreferFastest));
}

// Which way mf_linear would go.
void mf_route(const void* plan, int x_type, int64_t m, int capability, const char* preferred, char (*name)[32]) {
  cuda::Preference preference;
  if (!cuda::parse_preference(preferred, preference)) return;
  const cuda::Job job = cuda::make_job(plan_of(plan), m, cuda::ElementType(x_type), gpu_of(capability, 132, preference));
  std::strncpy(*name, cuda::name_of(job).c_str(), sizeof *name);
}

// The first number that Divisor divides wrongly by d, of the first and last 2**16 and the neighbours of d's multiples; or -1.
int mf_wrong_quotient(int d) {
  const cuda::Divisor divisor = cuda::divisor_of(d);
  const auto wrong = [&](int64_t n) { return n >= 0 && n <= INT32_MAX && divisor.quotient(int32_t(n)) != int32_t(n) / d; };
  for (int64_t i = 0; i < 1 << 16; ++i)
    for (const int64_t n : {i, INT32_MAX - i, i * d - 1, i * d, (INT32_MAX / d - i) * d - 1, (INT32_MAX / d - i) * d})
      if (wrong(n)) return int(n);
  return -1;
}

// Rows of x for one block.
int mf_columns(const void* plan, int x_type, int64_t m, int capability) {
  return cuda::make_job(plan_of(plan), m, cuda::ElementType(x_type), gpu_of(capability, 132, cuda::kPreferFastest)).columns;
}

// -1: the route is to dequantize and multiply elsewhere. *name tells which way it went.
int mf_linear(const void* record, const uint8_t* weight, const void* x, int x_type, int64_t m, const float* bias, void* y,
              int capability, int multiprocessors, const char* preferred, char (*name)[32]) {
  const Plan& plan = plan_of(record);
  cuda::Preference preference;
  if (!cuda::parse_preference(preferred, preference)) return cudaErrorInvalidValue;
  const cuda::Job job = cuda::make_job(plan, m, cuda::ElementType(x_type), gpu_of(capability, multiprocessors, preference));
  std::strncpy(*name, cuda::name_of(job).c_str(), sizeof *name);
  if (job.route == cuda::kRouteMultiply) return -1;
  if (job.route == cuda::kRouteProduct) return by_product(plan, job, weight, x, cuda::ElementType(x_type), m, bias, y);
  const Guarded workspace(job.workspace_bytes);
  return cuda::linear(plan, job, weight, x, cuda::ElementType(x_type), m, bias, y, workspace.data, nullptr);
}
}
