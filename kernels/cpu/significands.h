// Signed minifloats as significands and powers of two, by the fields of their codes; linear_significand.h and linear_windows.h
// multiply them.
#pragma once

#include "plan.h"

namespace minifloat {

// Exponents that share a window: a code of one of them is an int16 digit, (mantissa | hidden) * 2**shift, of at most 14 bits and
// a sign, and stands for 0 in the other windows. A byte multiply makes it: of the significand with its sign, and a power of two
// up to 2**7. Larger shifts take `widen` of them from the significand, which then still fits seven bits.
struct SignificandWindow {
  uint8_t hidden[16], widened[16], powers[16];  // by exponent field - first; widened: 0x80 where it is; powers: else 0
  uint8_t first;
  uint8_t exponent_mask;
  int mantissa_bits;
  int widen;
  int shift;  // a digit is worth 2**shift units
};

// Whether the plan's weights (carriers kInt16 and kInt16Windows) are multiplied so, and in how many windows: 0 if not.
// Activations are then stored with k's 1 and 2 of each quad exchanged, because a byte multiply makes digits of k's 0 and 2, or
// of 1 and 3.
int significand_windows(const Plan& p);
inline bool multiplies_significands(const Plan& p) { return significand_windows(p) > 0; }

// Window 0 has the largest exponents. Beyond the last one: a window of no exponents.
SignificandWindow significand_window(const Operand& o, int window);
// The smallest code, its sign left out, that is not 0 in this window.
int smallest_code(const Operand& o, int window);

}  // namespace minifloat
