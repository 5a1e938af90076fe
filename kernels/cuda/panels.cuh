// What linear_wide and linear_bits have in common: a block of four warps takes 64 rows of x and keeps four panels of 16
// outputs, a warp each, through its part of K. Chunks of x lie in a ring of two in shared memory, the next one coming by
// cp.async; the next chunk of the weight comes to registers, its scales to the warp's own shared memory.
#pragma once

#include "fold.cuh"
#include "wide_space.h"

namespace minifloat::cuda {

struct PanelBlock {
  int lane, g, t;
  int64_t panel, first_row;
  bool stores;  // a warp past the end repeats the last panel, unstored
  int first_chunk, last_chunk;
  const uint8_t* codes;  // of the panel
  unsigned char* raw;
  float* wide;
  unsigned char* x_ring;

  template <class Space>
  MF_DEVICE PanelBlock(const LinearParams& p, const Space& space, unsigned char* shared) {
    const int warp = threadIdx.x / 32;
    lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    raw = shared + space.raw_at + warp * 2 * space.scales.raw_bytes;
    wide = reinterpret_cast<float*>(shared + space.wide_at) + warp * space.scales.wide_floats;
    x_ring = shared + space.x_at;
    const int64_t panels = (p.n + 15) / 16, own_panel = int64_t(blockIdx.x) * kWideWarps + warp;
    stores = own_panel < panels;
    panel = stores ? own_panel : panels - 1;
    first_row = int64_t(blockIdx.y) * kWideRows;
    codes = p.codes + panel * p.panel_bytes;
    first_chunk = blockIdx.z * p.chunks_per_split;
    const int past = first_chunk + p.chunks_per_split;
    last_chunk = past < p.chunks ? past : p.chunks;
  }
};

// stage_x(chunk, to) starts the copies of a chunk of x; multiply(codes, x) uses it, with the scales in block.wide.
template <int kBits, int kXBytes, class StageX, class Multiply>
MF_DEVICE void for_chunks(const LinearParams& p, const ScaleSpace& scales, const PanelBlock& block, StageX stage_x, Multiply multiply) {
  Codes<kBits> codes{}, coming{};
  const auto stage = [&](int chunk, int buffer, Codes<kBits>& to) {
    if (chunk < block.last_chunk) {
      to.load(block.codes + int64_t(chunk) * kBits * 512, block.lane);
      stage_x(chunk, block.x_ring + buffer * kXBytes);
    }
    stage_scales(p, scales, block.panel, chunk, block.lane, block.raw + buffer * scales.raw_bytes);
    copy_async_commit();
  };
  stage(block.first_chunk, 0, codes);
  int buffer = 0;
  for (int chunk = block.first_chunk; chunk < block.last_chunk; ++chunk, buffer ^= 1) {
    stage(chunk + 1, 1 - buffer, coming);
    copy_async_wait<1>();
    __syncthreads();
    widen_scales(p, scales, chunk, block.lane, block.raw + buffer * scales.raw_bytes, block.wide);
    __syncwarp();
    multiply(codes, block.x_ring + buffer * kXBytes);
    codes = coming;
    __syncthreads();  // all warps have read x: the next copies may overwrite it
  }
  copy_async_wait<0>();
}

// Sums of the folds of a warp in the order of K: a slot's end may be a fold's, whose sums end_fold(end) then takes.
template <int kMath>
struct FoldCount {
  int slots_left, fold = 0, x_group = 0, folds_left;

  MF_DEVICE explicit FoldCount(const LinearParams& p) : slots_left(p.slots_per_fold), folds_left(p.folds_per_x_group) {}

  template <class EndFold>
  MF_DEVICE void end_slot(const LinearParams& p, const PanelBlock& block, int slot, EndFold end_fold) {
    if (--slots_left) return;
    if (fold < p.folds) end_fold(FoldEnd<kMath>(p, block.wide + slot * 16 + block.g, block.first_row + 2 * block.t, fold, x_group));
    slots_left = p.slots_per_fold, ++fold;
    if (--folds_left == 0) folds_left = p.folds_per_x_group, ++x_group;
  }
};

// Tile i of a warp: what it added up to in order, or else its sums, whole or the part of this block.
template <class Sum>
MF_DEVICE void store_tile(const LinearParams& p, const PanelBlock& block, int i, bool ordered, const Sum (&sums)[4], const float (&totals)[4]) {
#pragma unroll
  for (int j = 0; j < 4; ++j) {
    const int64_t row = block.first_row + 8 * i + 2 * block.t + j % 2;
    const int local = block.g + j / 2 * 8;
    const int64_t output = block.panel * 16 + local;
    if (row >= p.m || output >= p.n) continue;
    if (ordered) {
      finish(p, row, output, totals[j]);
    } else if (p.splits > 1) {
      static_cast<Sum*>(p.partial)[(blockIdx.z * p.m + row) * p.n + output] = sums[j];
    } else {
      finish_whole(p, row, output, sums[j], OutputScale(p, block.panel, local));
    }
  }
}

}  // namespace minifloat::cuda
