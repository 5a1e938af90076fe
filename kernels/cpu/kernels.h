// The kernels of one instruction set, and the choice between sets at run time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "choice.h"
#include "plan.h"

namespace minifloat {

// Activations ready for a carrier. Rows are k_padded digits long; padding is zero.
struct Activations {
  void* digits;   // (m, k_padded): int8, int16, double, WideDigit or float, as the carrier says
  int32_t* sums;  // (m, folds): sum of the digits of a fold; carriers of integers only
  float* scales;  // (m, groups), without the tensor scale
  float tensor_scale;
};

struct LinearArgs {
  const Plan* plan;
  Choice choice;
  const uint8_t* weight;  // see layout.h
  Activations x;
  int64_t m;
  const float* bias;  // (n), or nullptr
  float* y;           // (m, n)
};

// A scale and zero point that hold for a whole tensor, found before its rows are rounded.
struct Shared {
  bool given = false;      // scale and zero_point are to be used as they are
  float scale = 1, zero_point = 0;
  float tensor_scale = 1;  // second level, multiplies every scale
};

// One quantized matrix (rows, k) as codes. scales and zero_points are (rows, groups).
struct CodesArgs {
  const Operand* operand;
  int64_t rows, k, groups;
  uint8_t* codes;      // (rows, k)
  float* scales;       // without the second level
  float* zero_points;  // code values; nullptr without zero points
  bool scales_given;   // round with the scales and zero points that are there, else find and write them
  Shared shared;
};

struct Kernels {
  const char* name;
  Traits traits;
  // What must be known of all of x before a row can be rounded: nothing, unless scales or their second level are per tensor.
  Shared (*shared_scale)(const Operand& o, const float* x, int64_t count);
  // Rows [begin, end) of x (m, k) as digits of the plan's carrier, with scales and sums.
  void (*quantize_digits)(const Plan& plan, const float* x, const Shared& shared, const Activations& to, int64_t begin,
                          int64_t end);
  void (*quantize_codes)(const CodesArgs& args, const float* x, int64_t begin, int64_t end);
  void (*dequantize)(const CodesArgs& args, float* out, int64_t begin, int64_t end);
  // Outputs of panels [begin, end) for all m rows.
  void (*linear)(const LinearArgs& args, int64_t begin, int64_t end);
  // Weights of panels [begin, end), scales applied, transposed: out[k * stride + output - 16 * begin].
  void (*weights_as_float)(const Plan& plan, const uint8_t* weight, float* out, int64_t stride, int64_t begin,
                           int64_t end);
};

extern const Kernels kScalarKernels, kAvx2Kernels, kAvxVnniKernels, kAvx512VnniKernels;

// Any width: exact sums in a wide fixed-point accumulator.
void linear_wide(const LinearArgs& args, int64_t begin, int64_t end);

const Kernels& active_kernels();              // MINIFLOAT_ISA, else the widest set this CPU has
void select_kernels(const std::string& isa);  // throws std::invalid_argument, naming what would work
std::vector<std::string> supported_isas();

}  // namespace minifloat
