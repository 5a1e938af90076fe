// From bit planes to digits: 16 outputs at a time, on the vectors of an instruction set (see isa_*.cpp for what Isa offers).
#pragma once

#include <array>

#include "kernels.h"
#include "layout.h"
#include "significands.h"

namespace minifloat {
namespace {

#ifndef MF_ALWAYS_INLINE
#define MF_ALWAYS_INLINE __attribute__((always_inline))
#endif
#define MF_INLINE inline MF_ALWAYS_INLINE
#define MF_UNROLL _Pragma("GCC unroll 16")  // arrays of vectors become registers only where every index is a constant

// How far ahead a tile that decodes its weights fetches them: with 4 rows the prefetcher alone left half the time to waiting.
constexpr int64_t kAheadBytes = 8192;

// Calls body(0, 1, ... kCount - 1), the numbers as constants; for_count: body(0), body(1) ... in order.
template <int kCount, class Body>
MF_INLINE void for_numbers(Body body) {
  [&]<int... kNumber>(std::integer_sequence<int, kNumber...>) MF_ALWAYS_INLINE {
    body(std::integral_constant<int, kNumber>()...);
  }(std::make_integer_sequence<int, kCount>());
}
template <int kCount, class Body>
MF_INLINE void for_count(Body body) {
  for_numbers<kCount>([&](auto... number) MF_ALWAYS_INLINE { (body(number), ...); });
}

// The stored codes of quad kQuad of a block: byte j of lane o is output o, k = 4 * kQuad + j.
template <class Isa, int kBits, bool kInPlanes, int kQuad>
MF_INLINE typename Isa::Bytes codes_of_quad(const uint8_t* block) {
  constexpr Pieces pieces = pieces_of(kBits, kInPlanes, kQuad);
  const auto piece = [&](auto i) MF_ALWAYS_INLINE {
    constexpr Piece p = pieces.at[i];
    const auto row = Isa::load(block + p.row * kRowBytes);
    if constexpr (p.width == 8) return row;
    else return Isa::template field<p.bit, p.code_bit, p.width>(row);
  };
  auto out = piece(std::integral_constant<int, 0>());
  for_count<pieces.count - 1>([&](auto i) MF_ALWAYS_INLINE { out = Isa::either(out, piece(std::integral_constant<int, i + 1>())); });
  return out;
}
// The same of quad 4 * half + kQuad, 0 .. 3.
template <class Isa, int kBits, bool kInPlanes, int kQuad>
MF_INLINE typename Isa::Bytes stored_codes(const uint8_t* block, int half) {
  return half ? codes_of_quad<Isa, kBits, kInPlanes, kQuad + 4>(block) : codes_of_quad<Isa, kBits, kInPlanes, kQuad>(block);
}

// Which exponent fields Isa::Significands may meet, to index the tables of a window by field - first.
enum class Fields {
  kFew,        // less than 16, from 0 on
  kFromFirst,  // none above the window's last: what is negative has its top bit set, for which vpshufb gives 0
  kWithin,     // any: what is not among the tables' first 15 entries takes the last, which holds 0
};

// Of codes in planes, of quad 4 * half + kQuad: the low four bits, and bit kBit (4 and up) moved to the top of each byte, where what
// stands below it is of no use.
template <class Isa, int kBits, int kQuad>
MF_INLINE typename Isa::Bytes low_bits(const uint8_t* block, int half) {
  constexpr Piece here = pieces_of(kBits, true, kQuad).at[0], there = pieces_of(kBits, true, kQuad + 4).at[0];
  static_assert(here.width == 4 && there.bit == here.bit);
  return Isa::template field<here.bit, 0, 4>(Isa::load(block + (half ? there.row : here.row) * kRowBytes));
}
template <class Isa, int kBits, int kQuad, int kBit, bool kNeverZero>
MF_INLINE typename Isa::Bytes top_bit_of_quad(const uint8_t* block) {
  constexpr Piece p = pieces_of(kBits, true, kQuad).at[kBits == 7 && kBit == 6 ? 2 : 1];
  constexpr int kAt = p.bit + kBit - p.code_bit;
  static_assert(p.code_bit <= kBit && kBit < p.code_bit + p.width && (!kNeverZero || kAt > 0));
  const auto row = Isa::load(block + p.row * kRowBytes);
  return Isa::template to_top<kAt>(kNeverZero ? Isa::either(row, Isa::splat_byte(1)) : row);
}
// kNeverZero: a bit below is set, in the row, which does for all its quads.
template <class Isa, int kBits, int kQuad, int kBit, bool kNeverZero = false>
MF_INLINE typename Isa::Bytes top_bits(const uint8_t* block, int half) {
  return half ? top_bit_of_quad<Isa, kBits, kQuad + 4, kBit, kNeverZero>(block)
              : top_bit_of_quad<Isa, kBits, kQuad, kBit, kNeverZero>(block);
}

template <int kBits>
MF_INLINE void fetch_ahead(const uint8_t* panel, int64_t half) {
  const uint8_t* at = panel + half * kBits * kRowBytes / 2 + kAheadBytes;
  for (int b = 0; b < kBits * kRowBytes / 2; b += kRowBytes) __builtin_prefetch(at + b, 0, 2);
}

// A signed digit as |w| and a byte with w's sign, 0 only where |w| may be.
template <class Isa>
struct Signed {
  typename Isa::Bytes magnitude, sign;
  static MF_INLINE Signed of(typename Isa::Bytes w) { return {Isa::abs8(w), w}; }
};

// Where a kernel takes the 8-bit digits of its weights from, 4 k's of 16 outputs at a time: quad<Q>(half) are unsigned digits,
// grid - offset; signed_quad<Q>(half) is the grid itself.
template <class Isa, int kBits, Lookup kLookup, bool kSigned>
struct PackedDigits {
  const uint8_t* panel;
  typename Isa::template ByteTable<kLookup == Lookup::kTable ? kBits : 0> table;
  typename Isa::Bytes offset;

  PackedDigits(const uint8_t* panel, const uint8_t* digits, int offset)
      : panel(panel), table(digits), offset(Isa::splat_byte(offset)) {}
  // For panels side by side, once for every quad of a block: a line of 2-bit codes takes so many instructions that the CPU's own
  // prefetchers fall behind. With 1 and 3 bits nothing changed, with 4, 5 and 8 it did harm.
  template <int kQuad>
  MF_INLINE void fetch(int64_t half) const {
    constexpr int64_t kAhead = 384, kAt = kQuad * kBits * kRowBytes / 8;
    if constexpr (kBits == 2 && kAt % kRowBytes == 0) __builtin_prefetch(panel + (half >> 1) * kBits * kRowBytes + kAt + kAhead);
  }
  template <int kQuad>
  MF_INLINE typename Isa::Bytes quad(int64_t half) const {
    const uint8_t* block = panel + (half >> 1) * kBits * kRowBytes;
    if constexpr (kLookup == Lookup::kTable && may_be_split(kBits) && Isa::kSelectsTables) {
      return table.select(low_bits<Isa, kBits, kQuad>(block, half & 1), [&](auto bit) MF_ALWAYS_INLINE {
        return top_bits<Isa, kBits, kQuad, bit>(block, half & 1);
      });
    }
    const auto codes = stored_codes<Isa, kBits, may_be_split(kBits) && kLookup != Lookup::kNone, kQuad>(block, half & 1);
    if constexpr (kLookup == Lookup::kTable) return table.lookup(codes);
    if constexpr (kSigned) return Isa::add8(codes, offset);
    return codes;
  }
  template <int kQuad>
  MF_INLINE Signed<Isa> signed_quad(int64_t half) const {
    static_assert(kSigned);
    return Signed<Isa>::of(quad<kQuad>(half));
  }
};

template <class Isa, int kBits, bool kSigned>
struct PackedDigits<Isa, kBits, Lookup::kMagnitudes, kSigned> {
  static_assert(kBits == 6);
  const uint8_t* panel;
  typename Isa::template ByteTable<4> upper;  // magnitudes of codes 16 .. 31
  typename Isa::Bytes zero;                   // as an unsigned digit

  PackedDigits(const uint8_t* panel, const uint8_t* digits, int offset)
      : panel(panel), upper(magnitudes(digits, kSigned ? 0 : offset).data()), zero(Isa::splat_byte(-offset)) {}
  static std::array<uint8_t, 16> magnitudes(const uint8_t* digits, int offset) {
    std::array<uint8_t, 16> out;
    for (int i = 0; i < 16; ++i) out[i] = uint8_t(digits[16 + i] + offset);
    return out;
  }
  template <int kQuad>
  MF_INLINE void fetch(int64_t) const {}
  template <int kQuad>
  MF_INLINE Signed<Isa> signed_quad(int64_t half) const {
    const uint8_t* block = panel + (half >> 1) * kBits * kRowBytes;
    const auto low = low_bits<Isa, kBits, kQuad>(block, half & 1);
    const auto is_upper = top_bits<Isa, kBits, kQuad, 4>(block, half & 1);
    return {Isa::select8(low, upper.lookup(low), is_upper), top_bits<Isa, kBits, kQuad, 5, true>(block, half & 1)};
  }
  template <int kQuad>
  MF_INLINE typename Isa::Bytes quad(int64_t half) const {
    const auto w = signed_quad<kQuad>(half);
    const auto grid = Isa::sign8(w.magnitude, w.sign);
    return kSigned ? grid : Isa::add8(grid, zero);
  }
};

template <class Isa, int kBits>
struct PackedDigits<Isa, kBits, Lookup::kSignedTable, true> {
  const uint8_t* panel;
  typename Isa::template ByteTable<kBits - 1> magnitudes;

  PackedDigits(const uint8_t* panel, const uint8_t* digits, int) : panel(panel), magnitudes(digits) {}
  template <int kQuad>
  MF_INLINE Signed<Isa> signed_quad(int64_t half) const {
    const uint8_t* block = panel + (half >> 1) * kBits * kRowBytes;
    const auto magnitude = magnitudes.select(low_bits<Isa, kBits, kQuad>(block, half & 1), [&](auto bit) MF_ALWAYS_INLINE {
      return top_bits<Isa, kBits, kQuad, bit>(block, half & 1);
    });
    constexpr bool kBesideOthers = kBits == 6;  // a bit below the sign can be set in the row
    const auto sign = top_bits<Isa, kBits, kQuad, kBits - 1, kBesideOthers>(block, half & 1);
    return {magnitude, kBesideOthers ? sign : Isa::either(sign, Isa::splat_byte(1))};
  }
  template <int kQuad>
  MF_INLINE typename Isa::Bytes quad(int64_t half) const {
    const auto w = signed_quad<kQuad>(half);
    return Isa::sign8(w.magnitude, w.sign);
  }
};

template <class Isa>
struct DecodedDigits {
  const uint8_t* digits;

  template <int kQuad>
  MF_INLINE typename Isa::Bytes quad(int64_t half) const {
    return Isa::load(digits + (4 * half + kQuad) * kRowBytes);
  }
  template <int kQuad>
  MF_INLINE Signed<Isa> signed_quad(int64_t half) const {
    return Signed<Isa>::of(quad<kQuad>(half));
  }
};

// A source whose digits are stored on the way, as DecodedDigits takes them: for the first of several tiles.
template <class Isa, class Source>
struct StoredDigits {
  const Source& source;
  uint8_t* to;

  template <int kQuad>
  MF_INLINE typename Isa::Bytes quad(int64_t half) const {
    const auto digits = source.template quad<kQuad>(half);
    Isa::store(to + (4 * half + kQuad) * kRowBytes, digits);
    return digits;
  }
  template <int kQuad>
  MF_INLINE Signed<Isa> signed_quad(int64_t half) const {
    return Signed<Isa>::of(quad<kQuad>(half));
  }
};

// The grid itself of a source of unsigned digits.
template <class Isa, class Source>
struct GridOf {
  const Source& source;
  typename Isa::Bytes offset;

  template <int kQuad>
  MF_INLINE Signed<Isa> signed_quad(int64_t half) const {
    return Signed<Isa>::of(Isa::add8(source.template quad<kQuad>(half), offset));
  }
};

// 64-byte aligned scratch memory.
struct Scratch {
  std::vector<uint8_t> storage;
  uint8_t* data;
  explicit Scratch(int64_t bytes) : storage(bytes + 64) {
    data = reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(storage.data()) + 63) & ~uintptr_t(63));
  }
};

// The scales of 16 outputs for one group, widened to float32. Second-level factors are left out.
template <class Isa>
MF_INLINE typename Isa::Floats load_scales(const Operand& o, const uint8_t* scales, int64_t row) {
  const uint8_t* at = scales + row * kPanel * scale_bytes(o);
  switch (o.scale_kind) {
    case kFloat32:
      return Isa::load_floats(reinterpret_cast<const float*>(at));
    case kBFloat16:
      return Isa::from_bfloat16(reinterpret_cast<const uint16_t*>(at));
    case kPowerOfTwo:
      return Isa::from_power_of_two(at);
    default: {
      alignas(64) float values[kPanel];
      for (int i = 0; i < kPanel; ++i) values[i] = o.scale_values[at[i]];
      return Isa::load_floats(values);
    }
  }
}

// A weight panel with the places of its scales and zero points.
struct Panel {
  const uint8_t* codes;
  const uint8_t* scales;
  const uint8_t* zero_points;
  const uint8_t* marks;
  int64_t first_output, outputs;

  Panel(const Plan& p, const Layout& l, const uint8_t* weight, int64_t index)
      : codes(weight + index * l.panel_bytes),
        scales(weight + l.scales_at + index * l.groups * kPanel * scale_bytes(p.weight)),
        zero_points(weight + l.zero_points_at + index * l.groups * kPanel),
        marks(weight + l.marks_at + index * l.panel_marks),
        first_output(index * kPanel),
        outputs(std::min<int64_t>(kPanel, p.n - index * kPanel)) {}
};

// values (or zero points) of the 16 outputs' zero point codes as floats
inline void zero_point_values(const Plan& p, const Panel& panel, int64_t group, float* out) {
  for (int i = 0; i < kPanel; ++i) out[i] = p.weight.values[panel.zero_points[group * kPanel + i]];
}

// The last steps of the contract for one row and panel: activation scale, second-level scales, bias.
template <class Isa>
MF_INLINE void finish(const LinearArgs& a, const Panel& panel, int64_t m, typename Isa::Floats y) {
  const Plan& p = *a.plan;
  if (p.carrier != kFloat && p.activation.granularity != kGroup) y = Isa::mul(y, Isa::splat(a.x.scales[m]));
  y = Isa::mul(y, Isa::splat(p.weight.tensor_scale));
  if (p.carrier != kFloat) y = Isa::mul(y, Isa::splat(a.x.tensor_scale));
  float* out = a.y + m * p.n + panel.first_output;
  if (panel.outputs == kPanel) {
    if (a.bias) y = Isa::add(y, Isa::load_floats(a.bias + panel.first_output));
    Isa::store_floats(out, y);
    return;
  }
  alignas(64) float values[kPanel];
  Isa::store_floats(values, y);
  for (int64_t i = 0; i < panel.outputs; ++i) out[i] = a.bias ? values[i] + a.bias[panel.first_output + i] : values[i];
}

}  // namespace
}  // namespace minifloat
