// AVX2 with AVX-VNNI: vpdpbusd sums four u8 x s8 products into int32, exactly.
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

// Everything below, the shared loop nests included, is compiled for AVX-VNNI and lives in unnamed namespaces.
#define MINIFLOAT_AVX2
#pragma GCC push_options
#ifdef MINIFLOAT_EMULATED
#pragma GCC target("avx2,fma,f16c,bmi,bmi2")
#include "emulated.h"
#else
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,avxvnni")
#endif

#include "avx2.h"
#include "linear.h"
#include "quantize.h"

namespace minifloat {
namespace {

struct AvxVnni : Avx2 {
  static constexpr bool kHasDot = true;
  static constexpr int kRows = 6, kStreams = 1;
  static MF_INLINE Ints dot(Ints sum, Bytes w, Bytes x) { return MF_EACH(_mm256_dpbusd_avx_epi32(sum.v[i], w.v[i], x.v[i])); }
};

}  // namespace

const Kernels kAvxVnniKernels{"avxvnni", {true, 4, 4, 4, 2, true}, shared_scale,    quantize_digits,          quantize_codes,
                              dequantize, linear<AvxVnni>, weights_as_float<AvxVnni>};

}  // namespace minifloat

#pragma GCC pop_options
