// Signed minifloats as significands and powers of two, by the fields of their codes; linear_significand.h multiplies them.
#pragma once

#include "plan.h"

namespace minifloat {

constexpr int kHighShift = 8;  // shifts from here on have a digit of their own
constexpr int kWindowShift = 15;  // between two windows of exponents

// How a code's exponent field says what its mantissa field stands for: (mantissa | hidden) times low + high * 2**8, one of
// which is zero. Tables are indexed by the field's last four bits. Five bits make two windows: `select` is added to the field,
// and where that sets the top bit of a byte, the code belongs to the other window and stands for 0 in this one.
struct SignificandTable {
  uint8_t hidden[16], low[16], high[16];
  int mantissa_bits;
  uint8_t exponent_mask, select;
};

// Whether the plan's weights (carriers kInt16 and kInt16Pair) are multiplied so, and in how many windows: 0 if not, 1, or 2 of
// which the second is worth 2**15 units. Activations are then stored with k's 1 and 2 of each quad exchanged, because a byte
// multiply makes digits of k's 0 and 2, or 1 and 3.
int significand_windows(const Plan& p);
inline bool multiplies_significands(const Plan& p) { return significand_windows(p) > 0; }
SignificandTable significand_table(const Operand& o, int window);

}  // namespace minifloat
