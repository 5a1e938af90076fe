// How linear_warpgroup divides its dynamic shared memory. Host and device compute the same.
#pragma once

#include "narrow_space.h"

namespace minifloat::cuda {

constexpr int kWarpgroups = 2, kWarpgroupWarps = 4 * kWarpgroups, kWarpgroupThreads = 32 * kWarpgroupWarps;
constexpr int kWarpgroupOutputs = 16 * kWarpgroupWarps;
constexpr int kSlabBytes = 128;  // of a row of x that is staged at once: 128 digits, 64 floats
constexpr int kSumsStride = kWarpgroupOutputs + 4;  // words between rows of sums: a warp's stores meet no bank twice
constexpr int kMostTileRows = 128;

// Slabs in the ring: two more than are on their way, for the one being multiplied and the one whose products may still run.
MF_BOTH constexpr int slabs_in_ring(int tile_rows) { return tile_rows == 64 ? 6 : 4; }

// The ring of slabs of x (of two digits: low, high), aligned to 1024, which in the end holds the sums; then tables; then each warp's scales.
struct WarpgroupSpace {
  ScaleSpace scales;
  int32_t table_at, table_bytes, raw_at, wide_at, bytes;

  MF_BOTH WarpgroupSpace(const LinearParams& p, bool byte_operands, int bits, int tile_rows, int digits) : scales(p) {
    const int32_t ring = slabs_in_ring(tile_rows) * digits * tile_rows * kSlabBytes, sums = tile_rows * kSumsStride * 4;
    table_at = ring > sums ? ring : sums;
    table_bytes = p.decoder.kind == kDecodeTable && (!byte_operands || bits > 4) ? (1 << bits) * 128 : 0;
    raw_at = table_at + table_bytes;
    wide_at = raw_at + kWarpgroupWarps * 2 * scales.raw_bytes;
    bytes = wide_at + kWarpgroupWarps * scales.wide_floats * 4;
  }
};

}  // namespace minifloat::cuda
