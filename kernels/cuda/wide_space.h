// How linear_wide divides its dynamic shared memory. Host and device compute the same.
#pragma once

#include "narrow_space.h"

namespace minifloat::cuda {

constexpr int kWideWarps = 4, kWideTiles = 8, kWideRows = 8 * kWideTiles;

// Between rows of x in shared memory: so that a warp's loads of 8 rows, 4 lanes each, meet no bank twice.
MF_BOTH constexpr int wide_row_bytes(int math) { return math == kMathInt8 ? kChunk + 16 : 2 * kChunk + 32; }

// Tables, then each warp's scales, then a ring of two chunks of x.
struct WideSpace {
  ScaleSpace scales;
  int32_t table_bytes, raw_at, wide_at, x_at, bytes;

  MF_BOTH WideSpace(const LinearParams& p, bool exact, int bits) : scales(p) {
    table_bytes = p.decoder.kind == kDecodeTable && (!exact || bits > 4) ? (1 << bits) * 128 : 0;
    raw_at = table_bytes;
    wide_at = raw_at + kWideWarps * 2 * scales.raw_bytes;
    x_at = wide_at + kWideWarps * scales.wide_floats * 4;
    bytes = x_at + 2 * kWideRows * wide_row_bytes(exact ? kMathInt8 : kMathFloat16);
  }
};

}  // namespace minifloat::cuda
