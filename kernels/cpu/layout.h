// The weight layout that every CPU kernel streams.
//
// 16 outputs form a panel. A panel is a sequence of blocks of 32 k's; a block is rows of 64 bytes: 32-bit lane o belongs to
// output o, byte j of the lane to k = 4 q + j of quad q, 0 .. 7. One load, shift and mask thus yields bits of 4 k's of 16 outputs.
// A block of b-bit codes takes 64 b bytes: b rows. Each holds in its low bits as many whole codes as fit. The bits left over above
// them, one row's after the other's, hold the codes of the other quads.
// Not so 5- to 7-bit codes that are not digits, for which a table is asked by the low four bits: those lie in a plane of four rows of
// two codes each, the bits above them in a plane of two rows (bits 4 and 5 of four codes each) and one of one row (the top bit of
// 5 and 7 bits, of eight codes). Rows stand in the order in which quads need them: the CPU's prefetchers like to be asked for
// one line after the other.
//
// Section order: panels of codes; then scales [panel][group][16] as stored; then zero point codes [panel][group][16]; then marks.
// Missing outputs and k's hold code 0 (before the flip); activations are zero there.
//
// Marks are a byte per block. Weights in several windows of exponents (significands.h) have [panel][window - 1][block], none for
// the first window: bit q says that quad q of the block holds a weight of the window. Where sums are guarded (guards_sums)
// [panel][block] is 1 if a sum of the block could exceed int16; where activations are clamped (clamps_activations) bit i of it
// says so of the block's octet i, and so does it where bytes leave residues (residues.h). Eight bytes follow: how many marks are
// not 0. Then lists of residues, if there are any.
#pragma once

#include <cstdint>

#include "plan.h"

namespace minifloat {

// Bits bit .. bit + width - 1 of the bytes of a block's row are bits code_bit .. of the codes of a quad.
struct Piece {
  int row, bit, code_bit, width;
};
struct Pieces {
  int count = 0;
  Piece at[8] = {};
};

// From the low bits of a quad's codes to the top. in_planes: of 5 to 7 bits.
constexpr Pieces pieces_of(int bits, bool in_planes, int quad) {
  Pieces out;
  const auto add = [&](Piece piece) { out.at[out.count++] = piece; };
  if (in_planes) {
    const bool plane1 = bits & 1, plane2 = bits & 2;
    const int low = quad / 2;  // of the plane of four rows
    add({low + (low + 1) / 2 * plane2 + (low > 0) * plane1, quad % 2 * 4, 0, 4});
    if (plane2) add({quad < 4 ? 1 : 4 + plane1, quad % 4 * 2, 4, 2});
    if (plane1) add({1 + plane2, quad, bits - 1, 1});
    return out;
  }
  const int per_row = 8 / bits, left_over = 8 % bits, others = quad - bits * per_row;
  if (others < 0) add({quad / per_row, quad % per_row * bits, 0, bits});
  for (int code_bit = 0; others >= 0 && code_bit < bits;) {
    const int from = others * bits + code_bit, within = from % left_over;
    const int width = left_over - within < bits - code_bit ? left_over - within : bits - code_bit;
    add({from / left_over, per_row * bits + within, code_bit, width});
    code_bit += width;
  }
  return out;
}

struct Layout {
  bool in_planes;  // codes, see pieces_of
  int64_t panels, blocks, groups, panel_bytes, panel_marks;
  int64_t scales_at, zero_points_at, marks_at, bytes;
};
Layout layout_of(const Plan& plan);

// Canonical rows: `bits` per code, little-endian along K (k codes; bytes = ceil(k * bits / 8)).
void unpack_row(const uint8_t* packed, int bits, int64_t k, uint8_t* codes);
void pack_row(const uint8_t* codes, int bits, int64_t k, uint8_t* packed, int64_t bytes);

struct Canonical {
  uint8_t* packed;       // (n, packed_row_bytes), bits per code, little-endian along K
  int64_t packed_row_bytes;
  uint8_t* scales;       // (n, groups) or (1, 1), scale_bytes each
  uint8_t* zero_points;  // (n, groups) or (1, 1) codes, nullptr without zero points
};

// Panels [begin, end) of the layout from canonical storage, and back. After all panels: count_marks.
void pack_panels(const Plan& plan, const Canonical& from, uint8_t* layout, int64_t begin, int64_t end);
void count_marks(const Plan& plan, uint8_t* layout);
void restore_panels(const Plan& plan, const uint8_t* layout, const Canonical& to, int64_t begin, int64_t end);

// Of the blocks of all panels; 0 where there are no marks.
double marked_share(const Plan& plan, const uint8_t* layout);

// The canonical codes of one panel: (outputs of the panel, k).
void panel_codes(const Plan& plan, const uint8_t* layout, int64_t panel, uint8_t* codes);

}  // namespace minifloat
