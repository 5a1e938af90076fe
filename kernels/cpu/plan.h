// What a kernel knows about a computation: bit widths, tables, digits and where scales live. Never a format's name.
// Written by python/minifloat/ops/records.py as one byte tensor; the two must agree field by field.
#pragma once

#include <cstddef>
#include <cstdint>

namespace minifloat {

enum Granularity : int32_t { kTensor = 0, kRow = 1, kGroup = 2 };
enum ScaleKind : int32_t { kFloat32 = 0, kBFloat16 = 1, kPowerOfTwo = 2, kTwoLevel = 3 };
enum Carrier : int32_t { kFloat = 0, kInt8 = 1, kInt16 = 2, kFloat64 = 3, kWide = 4, kInt16Windows = 5 };
enum EncodeKind : int32_t { kByTable = 0, kByInteger = 1, kByMinifloat = 2 };

// One quantized operand: an element format and its scales. Tables are indexed by code unless they say otherwise.
struct Operand {
  int32_t bits;
  int32_t value_count;         // distinct finite values: thresholds[0 .. value_count - 2] are in use
  int32_t negative_zero_code;  // -1 if there is none
  int32_t nan_code;            // -1 if there is none
  int32_t code_flip;           // XOR that turns a two's complement code into value - lowest value; 0 for other formats
  int32_t granularity;
  int32_t group_size;          // 0 unless granularity is kGroup
  int32_t scale_kind;
  int32_t has_zero_point;
  int32_t is_signed;
  int32_t scale_exponent;      // floor(log2(scale_max))
  int32_t encode_kind;
  int32_t mantissa_bits;       // kByMinifloat
  int32_t min_exponent;        // kByMinifloat: exponent of the smallest normal value
  int32_t unit;                // value = grid * 2**unit
  int32_t reserved;
  float scale_max;             // the magnitude that absmax is mapped to
  float lowest, highest;       // range of values
  float tensor_scale;          // second level of a stored operand's scales, 1 if there is none
  float thresholds[256];       // by rank: t >= thresholds[r] means rank r + 1 or higher; +inf padding
  uint8_t codes[256];          // by rank
  float values[256];           // NaN where the code is special or unassigned
  int32_t grid[256];           // value / 2**unit where it fits, else 0 (then the carrier is kFloat64 or kWide)
  int32_t significand[256];    // value = significand * 2**(unit + shift)
  int32_t shift[256];
  float scale_thresholds[256]; // kTwoLevel: by rank, of the positive scale codes
  float scale_values[256];     // kTwoLevel: by scale code
};

// A digit of carrier kWide: significand * 2**shift units.
struct WideDigit {
  int32_t significand, shift;
};

struct Plan {
  uint64_t magic;
  int32_t version;
  int32_t bytes;
  int32_t carrier;
  int32_t offset;       // kInt8: weights are held as grid - offset, 0..255
  int32_t depth;        // kInt8: so many u8 x s8 pair products fit an int16 sum; 0 if not even one does
  int32_t signed_depth; // kInt8: so many |w| x (signed as w) pair products of grid integers fit; 0 if not even one does
  int32_t unit;         // a product of two grid integers is worth 2**unit
  int32_t largest_activation;  // kInt8: the largest magnitude of activation digits
  int64_t n, k;
  int64_t fold;         // products along K that share both scales, K if there is one scale per row
  int64_t fold_padded;  // fold in the weight layout: 16, or a multiple of 32
  int64_t folds;        // K / fold
  int64_t k_padded;     // K in the weight layout, a multiple of 32
  Operand weight;
  Operand activation;   // not used when carrier is kFloat
};

constexpr uint64_t kMagic = 0x31746f6c666e696dull;  // "minfolt1"
constexpr int32_t kVersion = 3;

constexpr int kPanel = 16;  // outputs that are interleaved, one per 32-bit lane of 64 bytes
constexpr int kBlock = 32;  // k's per block of the weight layout
constexpr int kOctet = 8, kSpan = 16;  // k's of which activations are cut off together, and weights halved
constexpr int kRowBytes = 64;

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline int64_t weight_groups(const Plan& p) {
  return p.weight.granularity == kGroup ? p.k / p.weight.group_size : 1;
}
inline int64_t activation_groups(const Plan& p) {
  return p.activation.granularity == kGroup ? p.k / p.activation.group_size : 1;
}
inline int scale_bytes(const Operand& o) {
  return o.scale_kind == kFloat32 ? 4 : o.scale_kind == kBFloat16 ? 2 : 1;
}
// kInt8: whether codes, as stored, are the digits that are multiplied.
inline bool codes_are_digits(const Plan& p) {
  bool are = p.carrier == kInt8;
  for (int code = 0; code < (1 << p.weight.bits); ++code) are &= p.weight.grid[code ^ p.weight.code_flip] - p.offset == code;
  return are;
}
// Whether the layout splits codes into planes: of these widths, those that a table is asked for.
constexpr bool may_be_split(int bits) { return bits >= 5 && bits <= 7; }
inline bool holds_planes(const Plan& p) { return may_be_split(p.weight.bits) && !codes_are_digits(p); }
// kInt8: whether int16 sums of kGuardedDepth pairs of products hold for most weights though not for all. Then the layout marks the
// blocks where they do not.
constexpr int kGuardedDepth = 4;
inline bool guards_sums(const Plan& p) {
  return p.carrier == kInt8 && p.signed_depth >= kGuardedDepth / 2 && p.signed_depth < kGuardedDepth;
}
// kInt8: whether one pair of products fits int16 for certain, but four mostly do where activations are cut off.
inline bool clamps_activations(const Plan& p) { return p.carrier == kInt8 && p.signed_depth == 1 && p.fold_padded >= 4 * kBlock; }
// Position of element k in the padded K of the layout.
inline int64_t padded_position(const Plan& p, int64_t k) {
  return p.fold ? (k / p.fold) * p.fold_padded + k % p.fold : k;
}

}  // namespace minifloat
