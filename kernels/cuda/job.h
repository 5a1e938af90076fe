// One call of linear: which kernels run, with what, in how much workspace. Host code without torch, so that the tests on
// the CPU go the same way as the op.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "activations.h"
#include "bits_space.h"
#include "storage.h"

namespace minifloat::cuda {

enum Route : int32_t {
  kRouteNarrow = 0,    // narrow.cuh
  kRouteWide = 1,      // wide.cuh
  kRouteLanes = 2,     // lanes.cu
  kRouteMultiply = 3,  // dequantize_weight, then a float32 product by whoever calls
  kRouteWarpgroup = 4,  // warpgroup.cuh
  kRouteBits = 5,       // bits.cu
  kRouteTables = 6,     // tables.cu
  kRouteProduct = 7,    // product.cu, and between its kernels a product by whoever calls
};

// Which kernels to use where they can be, for measurements.
enum Preference : int32_t {
  kPreferFastest = 0,  // what is known to be
  kPreferUsual = 1,    // never those that are for some cases only
  kPreferBits = 2,
  kPreferTables = 3,
  kPreferProduct = 4,
  kPreferWide = 5,  // where linear_warpgroup would run
};

constexpr const char* kPreferenceNames = "'' (what is known to be fastest), 'usual', 'bits', 'tables', 'product', 'wide'";

// False if there is no such name.
bool parse_preference(const std::string& name, Preference& preference);

struct Gpu {
  int capability;       // 10 * major + minor
  int multiprocessors;
  int shared_limit;  // bytes that it grants a block: 101376 (8.6, 8.9, 12.x) to 232448 (9.0)
  Preference preference = kPreferFastest;
};

// How linear_bits sees a plan; x_planes is 0 where it cannot multiply it.
struct BitDigits {
  int32_t x_planes;
  int32_t weight_lowest, weight_step, x_lowest, x_step;  // integer = lowest + step * digit
  int32_t stored_zero;                                   // the digit of stored code 0, which padded places hold
  uint32_t terms[kMostBitPlanes][4];
};

struct Job {
  Math math;
  Route route;
  int32_t columns, splits, chunks_per_split;
  // Offsets into the workspace, and its size.
  int64_t x_at, x_high_at, sums_at, scales_at, tensor_scale_at, extremes_at, partial_at, workspace_bytes;
  int64_t x_rows;  // m, rounded up to whole blocks
  bool spread;     // float contract: x has to be copied to the layout's K
  Decoder decoder;
  int32_t center;
  BitDigits digits;  // kRouteBits
};

// Tables for a kind of multiplication; false if it cannot hold this weight exactly.
bool make_decoder(const Plan& plan, Math math, Decoder& decoder, int32_t& center);

BitDigits make_bit_digits(const Plan& plan, const Layout& layout);

// False if the scales' values are not those of a minifloat with one sign, one exponent and one mantissa field.
bool make_scale_code(const Operand& operand, ScaleCode& scale);

// Why these kernels cannot do it, or an empty string.
std::string unsupported(const Plan& plan);

// Whether x of kElementFloat8 can be multiplied as it is. If not, widening it to bfloat16 loses nothing.
bool multiplies_float8(const Plan& plan, int64_t m, const Gpu& gpu);

Job make_job(const Plan& plan, int64_t m, ElementType x_type, const Gpu& gpu);

// "narrow int8": the kernels of a job and how they multiply.
std::string name_of(const Job& job);

// y (m, n) of x's type, or bfloat16 for kElementFloat8. Everything is on the device but the plan. Not for kRouteMultiply and
// kRouteProduct.
cudaError_t linear(const Plan& plan, const Job& job, const uint8_t* weight, const void* x, ElementType x_type, int64_t m,
                   const float* bias, void* y, void* workspace, cudaStream_t stream);

// kRouteProduct. First this: `decoded` (n, k_padded) of x's type, and where job.spread, x into `spread` (m, k_padded). Then
// product = x @ decoded.T in float32, then the other.
cudaError_t prepare_product(const Plan& plan, const Job& job, const uint8_t* weight, const void* x, ElementType x_type, int64_t m,
                            void* decoded, void* spread, cudaStream_t stream);
cudaError_t finish_product(const Plan& plan, const Job& job, const uint8_t* weight, ElementType x_type, int64_t m, float* product,
                           const float* bias, void* y, cudaStream_t stream);

StorageParams storage_params(const Plan& plan, uint8_t* packed, uint8_t* scales, uint8_t* zero_points, uint8_t* weight);
DequantizeParams dequantize_params(const Plan& plan, const uint8_t* weight, float* out);

}  // namespace minifloat::cuda
