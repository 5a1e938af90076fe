// y = x @ w.T: which loop nest multiplies the digits of a carrier.
#pragma once

#include "linear_int8.h"
#include "linear_windows.h"
#ifdef MINIFLOAT_AVX2
#include "linear_residues.h"
#include "linear_two_digits.h"
#endif

namespace minifloat {
namespace {

template <class Isa>
void linear(const LinearArgs& a, int64_t begin, int64_t end) {
  switch (a.plan->carrier) {
    case kFloat: return linear_words<Isa, FloatDigits>(a, begin, end);
    case kInt8: return linear_int8<Isa>(a, begin, end);
    case kInt16:
#ifdef MINIFLOAT_AVX2
      if constexpr (!Isa::kHasDot) {
        if (a.choice.method == std::string_view(kResidues)) return linear_residues<Isa>(a, begin, end);
        if (a.choice.method == std::string_view(kTwoDigits)) return linear_two_digits<Isa>(a, begin, end);
      }
#endif
      if (multiplies_significands(*a.plan)) return linear_significands<Isa>(a, begin, end);
      return linear_words<Isa, ShortDigits>(a, begin, end);
    case kInt16Windows: return linear_windows<Isa>(a, begin, end);
    case kFloat64: return linear_words<Isa, DoubleDigits>(a, begin, end);
    default: return linear_wide(a, begin, end);
  }
}

}  // namespace
}  // namespace minifloat
