// How linear_narrow divides its dynamic shared memory. Host and device compute the same.
#pragma once

#include "params.h"

namespace minifloat::cuda {

// Where a warp keeps its scales. raw: buffers for copies in flight. wide: floats [slot][16], then zero points likewise.
struct ScaleSpace {
  int32_t raw_groups;  // groups that a chunk can touch
  int32_t raw_bytes, wide_floats;

  MF_BOTH ScaleSpace(const LinearParams& p) {
    const bool has_zero_points = p.zero_points;
    raw_groups = p.folds <= 1 ? 0 : p.group_of.quotient(p.slots - 2 + p.slots_per_group) + 1;
    raw_bytes = raw_groups * 16 * (p.scale_bytes + has_zero_points);
    wide_floats = p.folds <= 1 ? 0 : p.slots * 16 * (1 + has_zero_points);
  }
};

constexpr int kNarrowWarps = 8;
constexpr int kNarrowTiles = 2;     // of 8 rows of x
constexpr int kColumnStride = 20;   // words between columns of 16 sums: lanes that store together meet no bank twice
constexpr int32_t kSharedLimit = 96 << 10;  // what every GPU from sm_80 on grants a block

// How many chunks of a warp are always on their way to shared memory: 32 KiB or more for two blocks on a multiprocessor.
// 0: codes go to registers, those of one chunk while the one before is multiplied, which is as much from 4 bits on. From 7 bits on
// they would leave registers for one block only. The exact contract bears it, for its folds' sums want the shared memory, and so do
// three terms of 8 bits, for their tables do.
MF_BOTH constexpr int copied_ahead(Math math, int bits) {
  const bool exact = math == kMathInt8 || math == kMathInt16;
  if (bits <= 3) return bits == 1 ? 4 : 2;
  if (math == kMathBFloat16x3) return bits >= 5 && bits <= 7 ? 1 : 0;
  return !exact && bits >= 7 ? 1 : 0;
}

// Dynamic shared memory: tables, each warp's scales, then each warp's codes on their way, then sums
// [buffer][warp][slot][column][kColumnStride].
struct NarrowSpace {
  ScaleSpace scales;
  int32_t table_bytes, raw_at, wide_at, codes_at, sums_at, warp_sums, bytes;
  int32_t wide_buffers;  // 2 where a round's scales are read by threads of other warps, while these begin the next one

  MF_BOTH NarrowSpace(const LinearParams& p, bool exact, int bits, int ahead) : scales(p) {
    table_bytes = p.decoder.kind == kDecodeTable && (!exact || bits > 4) ? (1 << bits) * 128 << p.decoder.more_tables : 0;
    raw_at = table_bytes;
    wide_at = raw_at + kNarrowWarps * (ahead ? ahead : 2) * scales.raw_bytes;
    wide_buffers = p.slots == 1 ? 2 : 1;
    codes_at = wide_at + kNarrowWarps * wide_buffers * scales.wide_floats * 4;
    sums_at = codes_at + kNarrowWarps * ahead * bits * 512;
    warp_sums = (p.ordered ? p.slots : 1) * p.columns * kColumnStride;
    bytes = sums_at + (p.ordered ? 2 : 1) * kNarrowWarps * warp_sums * 4;
  }
};

}  // namespace minifloat::cuda
