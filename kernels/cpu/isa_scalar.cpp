// Plain C++: every vector is an array of 16 outputs. The slowest and the most obvious instruction set.
// Nothing here stays in registers: inlining everything, or -O3, only takes minutes more to compile.
#pragma GCC optimize("O2")
#define MF_ALWAYS_INLINE
#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <numeric>
#include <string_view>
#include <type_traits>
#include <vector>

#include "linear.h"
#include "quantize.h"

namespace minifloat {
namespace {

struct Scalar {
  template <class T, int kCount>
  struct Vector {
    T lane[kCount];
  };
  using Bytes = Vector<uint8_t, 64>;
  using Ints = Vector<int32_t, 16>;
  using Floats = Vector<float, 16>;
  using Doubles = Vector<double, 16>;
  static constexpr bool kHasDot = true, kSelectsTables = false, kLooksUpInRows = false, kLooksUpQuads = false;
  static constexpr int kFusedRows = 0, kSelectRows = 0, kRows = 1;
  static constexpr int kFloatRows = 1, kDoubleRows = 1, kStreams = 1;

  template <class Out, class Function>
  static MF_INLINE Out each(Function function) {
    Out out;
    for (int i = 0; i < int(sizeof(out.lane) / sizeof(out.lane[0])); ++i) out.lane[i] = function(i);
    return out;
  }

  static Bytes load(const uint8_t* at) { return each<Bytes>([&](int i) { return at[i]; }); }
  static void store(uint8_t* at, Bytes v) { std::copy(v.lane, v.lane + 64, at); }
  static Bytes zero_bytes() { return Bytes{}; }
  // Bits kFrom .. kFrom + kWidth - 1 of each byte, moved to bit kTo.
  template <int kFrom, int kTo, int kWidth>
  static Bytes field(Bytes v) {
    return each<Bytes>([&](int i) { return ((v.lane[i] >> kFrom) & ((1 << kWidth) - 1)) << kTo; });
  }
  static Bytes either(Bytes a, Bytes b) { return each<Bytes>([&](int i) { return a.lane[i] | b.lane[i]; }); }
  static Bytes add8(Bytes a, Bytes b) { return each<Bytes>([&](int i) { return a.lane[i] + b.lane[i]; }); }
  static Bytes splat_byte(int value) { return each<Bytes>([&](int) { return uint8_t(value); }); }
  static Bytes splat4(const int8_t* at) { return each<Bytes>([&](int i) { return uint8_t(at[i % 4]); }); }
  static Ints dot(Ints sum, Bytes w, Bytes x) {
    return each<Ints>([&](int i) {
      int32_t total = sum.lane[i];
      for (int j = 0; j < 4; ++j) total += w.lane[4 * i + j] * int8_t(x.lane[4 * i + j]);
      return total;
    });
  }
  static Ints splat_int(int32_t v) { return each<Ints>([&](int) { return v; }); }
  static Ints load_ints(const uint8_t* at) { return std::bit_cast<Ints>(load(at)); }
  static void store_ints(uint8_t* at, Ints v) { store(at, std::bit_cast<Bytes>(v)); }
  static Ints add_int(Ints a, Ints b) { return each<Ints>([&](int i) { return a.lane[i] + b.lane[i]; }); }
  static Ints sub_int(Ints a, Ints b) { return each<Ints>([&](int i) { return a.lane[i] - b.lane[i]; }); }
  static Ints mul_int(Ints a, Ints b) { return each<Ints>([&](int i) { return a.lane[i] * b.lane[i]; }); }
  static Ints to_int(Floats v) { return each<Ints>([&](int i) { return int32_t(v.lane[i]); }); }
  static Floats to_float(Ints v) { return each<Floats>([&](int i) { return float(v.lane[i]); }); }
  static Floats as_floats(Ints v) { return std::bit_cast<Floats>(v); }
  static Ints as_ints(Floats v) { return std::bit_cast<Ints>(v); }
  template <int kByte>
  static Ints byte_of(Bytes v) {
    return each<Ints>([&](int i) { return v.lane[4 * i + kByte]; });
  }
  // Bytes 0 and 2 (or 1 and 3) of each lane, zero between them.
  template <int kOdd>
  static Bytes bytes_of(Bytes v) {
    return each<Bytes>([&](int i) { return i % 2 == kOdd ? v.lane[i] : 0; });
  }
  // u8 x s8 products, summed in pairs to int16, two in each lane.
  static Ints pair_dot(Bytes w, Bytes x) {
    const auto product = [&](int i) { return w.lane[i] * int8_t(x.lane[i]); };
    return each<Ints>([&](int i) {
      const int low = product(4 * i) + product(4 * i + 1), high = product(4 * i + 2) + product(4 * i + 3);
      return int32_t(uint32_t(uint16_t(low)) | (uint32_t(uint16_t(high)) << 16));
    });
  }
  static Ints pair_words(Ints even, Ints odd) {
    return each<Ints>([&](int i) { return (even.lane[i] & 0xffff) | (uint32_t(odd.lane[i]) << 16); });
  }
  static Ints splat_pair(const int16_t* at) {
    return splat_int(int32_t(uint16_t(at[0]) | (uint32_t(uint16_t(at[1])) << 16)));
  }
  static Ints pair_dot16(Ints a, Ints b) {
    return each<Ints>([&](int i) {
      return int16_t(a.lane[i]) * int16_t(b.lane[i]) + (a.lane[i] >> 16) * (b.lane[i] >> 16);
    });
  }
  static Floats splat(float v) { return each<Floats>([&](int) { return v; }); }
  static Floats load_floats(const float* at) { return each<Floats>([&](int i) { return at[i]; }); }
  static void store_floats(float* at, Floats v) { std::copy(v.lane, v.lane + 16, at); }
  static Floats add(Floats a, Floats b) { return each<Floats>([&](int i) { return a.lane[i] + b.lane[i]; }); }
  static Floats sub(Floats a, Floats b) { return each<Floats>([&](int i) { return a.lane[i] - b.lane[i]; }); }
  static Floats mul(Floats a, Floats b) { return each<Floats>([&](int i) { return a.lane[i] * b.lane[i]; }); }
  static Floats fma(Floats a, Floats b, Floats c) { return add(mul(a, b), c); }
  static bool all_normal(Floats v) {  // and positive
    return std::all_of(v.lane, v.lane + 16, [](float f) { return f >= 0x1p-126f && f <= 0x1.fffffep127f; });
  }
  static Floats from_bfloat16(const uint16_t* at) {
    return each<Floats>([&](int i) { return float_of(uint32_t(at[i]) << 16); });
  }
  static Floats from_power_of_two(const uint8_t* at) {  // 2**(code - 127); code 0 is subnormal
    return each<Floats>([&](int i) { return float_of(std::max(uint32_t(at[i]) << 23, 0x00400000u)); });
  }
  static Doubles splat_double(double v) { return each<Doubles>([&](int) { return v; }); }
  static Doubles load_doubles(const double* at) { return each<Doubles>([&](int i) { return at[i]; }); }
  static void store_doubles(double* at, Doubles v) { std::copy(v.lane, v.lane + 16, at); }
  static Doubles to_doubles(Floats v) { return each<Doubles>([&](int i) { return v.lane[i]; }); }
  static Floats to_floats(Doubles v) { return each<Floats>([&](int i) { return float(v.lane[i]); }); }
  static Doubles ints_to_doubles(Ints v) { return each<Doubles>([&](int i) { return v.lane[i]; }); }
  static Doubles mul_double(Doubles a, Doubles b) { return each<Doubles>([&](int i) { return a.lane[i] * b.lane[i]; }); }
  static Doubles fma_double(Doubles a, Doubles b, Doubles c) {
    return each<Doubles>([&](int i) { return a.lane[i] * b.lane[i] + c.lane[i]; });
  }

  template <int kBits>
  struct ByteTable {
    const uint8_t* table;
    explicit ByteTable(const uint8_t* table) : table(table) {}
    Bytes lookup(Bytes codes) const {
      return each<Bytes>([&](int i) { return table[codes.lane[i]]; });
    }
  };
  template <int kBits, Fields, bool kWidens>
  struct Significands {
    SignificandWindow t;
    Significands(const SignificandWindow& t) : t(t) {}
    Bytes indices(Bytes codes) const {
      return each<Bytes>([&](int i) {
        const int index = ((codes.lane[i] >> t.mantissa_bits) & t.exponent_mask) - t.first;
        return index < 0 || index > 15 ? 15 : index;
      });
    }
    Bytes significands(Bytes codes, Bytes indices) const {
      return each<Bytes>([&](int i) {
        int out = (codes.lane[i] & ((1 << t.mantissa_bits) - 1)) | t.hidden[indices.lane[i]];
        if (kWidens && t.widened[indices.lane[i]]) out <<= t.widen;
        return uint8_t(codes.lane[i] >> (kBits - 1) ? -out : out);
      });
    }
    Bytes powers(Bytes indices) const {
      return each<Bytes>([&](int i) { return t.powers[indices.lane[i]]; });
    }
  };
  template <int kBits>
  struct WordTable {
    const int32_t* table;
    explicit WordTable(const int32_t* table) : table(table) {}
    Ints lookup(Ints codes) const {
      return each<Ints>([&](int i) { return table[codes.lane[i]]; });
    }
  };
};

}  // namespace

const Kernels kScalarKernels{"scalar", {true, 0, 0, 0, 0, false}, shared_scale,   quantize_digits,         quantize_codes,
                             dequantize,       linear<Scalar>, weights_as_float<Scalar>};

}  // namespace minifloat
