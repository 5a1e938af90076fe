// What the linear kernels are told: pointers, extents, and the format as tables and shifts. Passed by value, so that a
// captured graph holds all of it.
#pragma once

#include <cstdint>

#include "divisor.h"
#include "layout.h"

namespace minifloat::cuda {

enum ElementType : int32_t { kElementFloat32 = 0, kElementFloat16 = 1, kElementBFloat16 = 2, kElementFloat8 = 3 };

// How a kernel multiplies: the type of the operands of mma.sync, or of plain multiplications for kMathFloat32.
enum Math : int32_t {
  kMathInt8 = 0,
  kMathInt16 = 1,
  kMathFloat16 = 2,
  kMathBFloat16 = 3,
  kMathFloat32 = 4,
  kMathFloat8 = 5,  // four exponent bits, three of mantissa, no infinity: what tensor cores call e4m3
  kMathFloat16x2 = 6,   // weights as sums of two float16 numbers: x float16
  kMathBFloat16x3 = 7,  // as sums of three bfloat16 numbers: x bfloat16
};

// How a stored code becomes a number.
enum Decode : int32_t {
  kDecodeTable = 0,      // table[code]
  kDecodeIntegers = 1,   // code - origin
  kDecodeMinifloat = 2,  // sign, exponent and mantissa moved to their places in the wider type, then one multiplication
  kDecodeTwo = 3,        // one bit, floating-point math: table[0] and, for code 1, the bits of table[1] turned over
  kDecodeBytes = 4,      // 16-bit math, up to 4 bits: the two bytes of the value, by permutation
};

struct Decoder {
  int32_t kind;
  uint32_t flip;                // integer math, kDecodeIntegers: XOR of each word of four codes
  int32_t shift;                // kDecodeMinifloat: right shift that moves the exponent to its place
  uint32_t sign_mask, magnitude_mask;
  uint32_t multiplier;          // bits of the power of two, in both halves for 16-bit types
  int32_t more_tables;          // 1 where a value takes more than a word of the table in shared memory, so that there are two
  float origin;                 // kDecodeIntegers without zero points, floating-point math
  // Integer math, up to 4 bits: words 0..3 are sixteen low digits, words 4..7 sixteen high digits. Above: low | high << 8.
  // kMathFloat8: as low digits. kDecodeBytes: as low and high digits.
  // 16-bit math: the value's bits (kDecodeTwo: in both halves). kMathFloat32 and sums of 16-bit numbers: float32 bits.
  uint32_t table[256];
};

// How a stored scale becomes a number. kTwoLevel: sign, exponent and mantissa moved to float32's, then one multiplication.
struct ScaleCode {
  int32_t kind;
  int32_t shift;     // left shift of the code without its sign
  float multiplier;  // the power of two between the two exponent biases
};

struct LinearParams {
  const uint8_t* codes;
  const uint8_t* scales;       // [panel][group][16]
  const uint8_t* zero_points;  // [panel][group][16], nullptr without
  const void* x;               // (m, k_padded): digits, or numbers of the math's type
  const void* x_high;          // kMathInt16: the high digits
  const float* x_scales;       // (x_groups, x_rows)
  const int32_t* x_sums;       // (folds, x_rows): sums of the digits
  const float* x_tensor_scale; // one number on the device; nullptr without
  const float* bias;           // (n), nullptr without
  void* y;                     // (m, n)
  void* partial;               // (splits, m, n) sums of 4 bytes, when splits > 1
  int64_t m, n, k_padded, panel_bytes;
  int64_t x_rows;              // m, rounded up to whole blocks
  int32_t chunks, folds, groups;
  int32_t columns;             // rows of x that one block takes
  int32_t splits, chunks_per_split;
  int32_t y_type;
  ScaleCode scale;
  int32_t scale_bytes;
  int32_t slot_k, slot_shift;  // k's whose products are summed before a scale is applied: min(fold_padded, 256) = 2**slot_shift
  int32_t slots;               // per chunk: 1, 2, 4, 8 or 16
  int32_t slots_per_fold, slots_per_group, folds_per_x_group;
  Divisor group_of;            // of a slot, counted from the first
  Divisor x_group_of;          // of a fold
  int32_t ordered;             // exact contract with several folds: float additions in the order of K
  int32_t x_grouped;
  int32_t center;              // integer math: digit = grid - center; kMathFloat16x2: values are scaled by 2**center
  int32_t zero_point_mask;     // zero point code -> unsigned offset from the lowest value: code ^ mask
  float lowest;                // value of that offset 0
  float unit;                  // exact contract: a product of two digits is worth this much
  float weight_tensor_scale;
  Decoder decoder;
};

}  // namespace minifloat::cuda
