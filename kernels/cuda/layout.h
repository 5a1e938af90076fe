// The weight layout that every CUDA kernel streams: each lane's operands of mma.sync, in the order it loads them.
//
// 16 outputs form a panel; a panel is a sequence of chunks of 256 k's, and a chunk of b-bit codes is b loads of 32 lanes
// times 16 bytes. Lane 4 g + t of a warp holds, for each half block of 16 k's, two quads: outputs g and g + 8 of the panel,
// k's 4 t .. 4 t + 3. These are what mma.sync m16n8k16 and m16n8k32 want of the lane, k's numbered within the tile as it suits.
// The codes' bits are in planes of 8, 4, 2 or 1 bits as on the CPU (kernels/cpu/layout.h), widest first, low bits in the widest:
//   plane 8: words [half block 16][output half 2], a code a byte;
//   plane 4: words [half block 16], byte = code of output g | code of output g + 8 << 4;
//   plane 2: words [block 8], bits 0-1 and 4-5 of a byte for the first half block, 2-3 and 6-7 for the second;
//   plane 1: words [pair of blocks 4], bits i and 4 + i of a byte for half block i of the four.
// Word w of a plane is word w % 4 of load w / 4. The bytes of a word are k's 0, 2, 1, 3 of the quad: then one mask
// yields the pairs (0, 1) and (2, 3) in the 16-bit halves of a register.
//
// K is laid out fold by fold (a fold is a run of K that shares its scales): a single fold and folds over 128 are padded to
// whole chunks, shorter ones to the next power of two, at least 16. Section order as on the CPU: panels of codes; scales
// [panel][group][16] as stored; zero point codes [panel][group][16]. Padding holds the code of zero's place: x is zero there.
#pragma once

#include <cstdint>

#include "cpu/plan.h"

namespace minifloat::cuda {

#if defined(__CUDACC__)
#define MF_BOTH __host__ __device__
#else
#define MF_BOTH
#endif

constexpr int kChunk = 256;      // k's
constexpr int kHalfBlocks = 16;  // of 16 k's, in a chunk

struct Layout {
  int32_t bits, scale_bytes;
  int64_t n, k, panels, chunks, groups;
  int64_t fold, fold_padded, folds, k_padded;
  int64_t panel_bytes, scales_at, zero_points_at, bytes;

  // Position of element k in the padded K.
  MF_BOTH int64_t position(int64_t k) const { return fold ? (k / fold) * fold_padded + k % fold : k; }
};

inline int64_t padded_fold(int64_t fold, int64_t folds) {
  if (folds <= 1 || fold > kChunk / 2) return ceil_div(fold, kChunk) * kChunk;
  int64_t padded = 16;
  while (padded < fold) padded *= 2;
  return padded;
}

inline Layout layout_of(const Plan& p) {
  Layout l{};
  l.bits = p.weight.bits, l.scale_bytes = scale_bytes(p.weight);
  l.n = p.n, l.k = p.k, l.fold = p.fold, l.folds = p.folds;
  l.groups = weight_groups(p);
  l.panels = ceil_div(p.n, kPanel);
  l.fold_padded = padded_fold(p.fold, p.folds);
  l.k_padded = ceil_div(p.folds * l.fold_padded, kChunk) * kChunk;
  l.chunks = l.k_padded / kChunk;
  l.panel_bytes = l.chunks * l.bits * 512;
  l.scales_at = l.panels * l.panel_bytes;
  l.zero_points_at = l.scales_at + l.panels * l.groups * kPanel * l.scale_bytes;
  l.bytes = l.zero_points_at + (p.weight.has_zero_point ? l.panels * l.groups * kPanel : 0);
  return l;
}

MF_BOTH inline int byte_of_k(int k) { return (k & 1) << 1 | (k >> 1 & 1); }  // its own inverse

// Where bits [code_bit, code_bit + width) of the code of (output, k) lie: a byte of the chunk and the first bit in it.
struct Place {
  int32_t byte, bit;
};
MF_BOTH inline Place place_in_chunk(int bits, int width, int code_bit, int output, int k) {
  const int lane = output % 8 * 4 + k % 16 / 4, upper = output / 8, half = k / 16;
  int word, bit;
  if (width == 8) {
    word = 2 * half + upper, bit = 0;
  } else if (width == 4) {
    word = half, bit = 4 * upper;
  } else if (width == 2) {
    word = half / 2, bit = 4 * upper + half % 2 * 2;
  } else {
    word = half / 4, bit = 4 * upper + half % 4;
  }
  // Planes lie widest first, so code_bit bits of each code lie before this one: code_bit loads of 512 bytes.
  const int load = code_bit + word / 4;
  return {load * 512 + lane * 16 + word % 4 * 4 + byte_of_k(k % 4), bit};
}

}  // namespace minifloat::cuda
