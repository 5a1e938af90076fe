// Division by a number that is known before the kernel starts: a multiplication and a shift.
#pragma once

#include <bit>
#include <cstdint>

#include "layout.h"

namespace minifloat::cuda {

struct Divisor {
  uint32_t multiplier;
  int32_t shift;

  // floor(n / d) for 0 <= n < 2**31. With 2**shift the power of two from d on, multiplier is 2**(31 + shift) / d, rounded up by
  // less than 1: too much by less than n / 2**(31 + shift) < 1 / d, which reaches no integer.
  MF_BOTH int32_t quotient(int32_t n) const {
    return int32_t(uint32_t(uint64_t(2 * uint32_t(n)) * multiplier >> 32) >> shift);
  }
};

// d from 1 to 2**30.
inline Divisor divisor_of(int32_t d) {
  const int shift = std::bit_width(uint32_t(d - 1));
  return {uint32_t(((uint64_t(1) << (31 + shift)) + d - 1) / d), shift};
}

}  // namespace minifloat::cuda
