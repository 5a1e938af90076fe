// Signed minifloats as significands and powers of two, by the fields of their codes; linear_significand.h multiplies them.
#pragma once

#include "plan.h"

namespace minifloat {

constexpr int kHighShift = 7;  // shifts from here on have a digit of their own

// How a code's exponent field (0..15; fewer bits repeat) says what its mantissa field stands for: (mantissa | hidden) times
// low + high * 2**7, one of which is zero.
struct SignificandTable {
  uint8_t hidden[16], low[16], high[16];
  int mantissa_bits;
};

// Whether the plan's weights (carriers kInt16 and kInt16Pair) are multiplied so; fills the table if it is given. Activations are
// then stored with k's 1 and 2 of each quad exchanged, because a byte multiply makes digits of k's 0 and 2, or 1 and 3.
bool multiplies_significands(const Plan& p, SignificandTable* table = nullptr);

}  // namespace minifloat
