// AVX2 and FMA.
#include <immintrin.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels.h"

// Everything below, the shared loop nests included, is compiled for AVX2 and lives in unnamed namespaces.
#define MINIFLOAT_AVX2
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")

#include "avx2.h"
#include "linear.h"
#include "quantize.h"

namespace minifloat {

const Kernels kAvx2Kernels{"avx2", {false, 4, 2, 4, 2, true}, shared_scale, quantize_digits,       quantize_codes,
                           dequantize, linear<Avx2>, weights_as_float<Avx2>};

}  // namespace minifloat

#pragma GCC pop_options
