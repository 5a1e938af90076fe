// What linear_tables is told beyond LinearParams, and how it divides its dynamic shared memory. Host and device compute the same.
#pragma once

#include <cuda_runtime.h>

#include "narrow_space.h"

namespace minifloat::cuda {

struct TablesParams : LinearParams {
  float values[2];  // of the stored codes 0 and 1
};

constexpr int kTablePanels = 2;   // of 16 outputs, a block: they share tables
constexpr int kTablesOfLane = 16; // in a chunk: a table for each byte of the four words that a lane holds
// Words from one of these to the next: 16 sums for each of four lanes, and 4 more, so that lanes that fill tables meet no bank twice.
constexpr int kTableStride = 16 * 4 + 4;

// Of a warp. A multiple of 256, so that the index of an entry is or-ed to the tables' place instead of added.
constexpr int kTablesBytes = kTablesOfLane * kTableStride * 4;
static_assert(kTablesBytes % 256 == 0);

// Each warp's scales, panel by panel, multiples of 256 bytes for all warps; then each warp's tables; then the warps' sums.
struct TablesSpace {
  ScaleSpace scales;
  int32_t wide_at, tables_at, sums_at, bytes;

  MF_BOTH TablesSpace(const LinearParams& p) : scales(p) {
    wide_at = kNarrowWarps * kTablePanels * 2 * scales.raw_bytes;
    tables_at = wide_at + kNarrowWarps * kTablePanels * scales.wide_floats * 4;
    sums_at = tables_at + kNarrowWarps * kTablesBytes;
    bytes = sums_at + kNarrowWarps * kTablePanels * 16 * 4;
  }
};

cudaError_t linear_tables_float32(const TablesParams& p, cudaStream_t stream);

}  // namespace minifloat::cuda
