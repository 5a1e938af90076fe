// The weight layout that every CPU kernel streams.
//
// 16 outputs form a panel. A panel is a sequence of blocks of 32 k's; a block is rows of 64 bytes: 32-bit lane o belongs to
// output o, byte j of the lane to k = 4 q + j of quad q, 0 .. 7. One load, shift and mask thus yields bits of 4 k's of 16 outputs.
// Codes' bits are stored in planes of 8, 4, 2 or 1 bits (5 bits: planes 4 + 1; 6: 4 + 2; 7: 4 + 2 + 1), widest plane first, low
// bits of the code in the widest. A byte of a plane of w bits holds 8 / w quads: row r, bits f * w .. f * w + w - 1 are quad
// q = r * 8 / w + f.
// 3-bit codes are not split where they need not be: row r holds quads 2 r and 2 r + 1 in bits 0 .. 5. Bits 6 and 7 of rows 0 and 1
// are the low bits of quads 6 and 7, bits 6 and 7 of row 2 their top bits.
// A block of b-bit codes takes 64 b bytes.
//
// Section order: panels of codes; then scales [panel][group][16] as stored; then zero point codes [panel][group][16]; then marks.
// Missing outputs and k's hold code 0 (before the flip); activations are zero there.
//
// Marks are a byte per block. Weights in several windows of exponents (significands.h) have [panel][window - 1][block], none for
// the first window: bit q says that quad q of the block holds a weight of the window. Where sums are guarded (guards_sums)
// [panel][block] is 1 if a sum of the block could exceed int16; where activations are clamped (clamps_activations) bit i of it
// says so of the block's octet i. Eight bytes follow: how many marks are not 0.
#pragma once

#include <cstdint>

#include "plan.h"

namespace minifloat {

struct Layout {
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
