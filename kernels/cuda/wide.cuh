// More rows of x: 64 outputs and 64 rows of x a block. Each of four warps keeps a panel of 16 outputs to itself and runs
// through K alone, so the exact contract's order over folds is simply the order of the loop.
//
// x comes by cp.async into a ring of two chunks in shared memory, shared by the four warps; weights go from memory to
// registers as in narrow.cuh. Where outputs are too few to fill the GPU and the order of float additions does not matter,
// blockIdx.z splits K; split_sums then adds the parts in their order.
#pragma once

#include "fold.cuh"
#include "split.cuh"
#include "wide_space.h"

namespace minifloat::cuda {

// One chunk of the block's rows of x into shared memory, rows kRowBytes apart.
template <int kMath>
MF_DEVICE void stage_x(const LinearParams& p, int64_t first_row, int chunk, int last_chunk, unsigned char* to) {
  if (chunk >= last_chunk) return;
  constexpr int kBytes = kChunk * Traits<kMath>::kXBytes, kPieces = kBytes / 16;
#pragma unroll 2
  for (int i = threadIdx.x; i < kWideRows * kPieces; i += kWideWarps * 32) {
    const int row = i / kPieces, piece = i % kPieces;
    const bool valid = first_row + row < p.m;
    const int64_t at = ((valid ? first_row + row : 0) * p.k_padded + int64_t(chunk) * kChunk) * Traits<kMath>::kXBytes;
    copy_async(to + row * wide_row_bytes(kMath) + piece * 16, static_cast<const uint8_t*>(p.x) + at + piece * 16, valid);
  }
}

template <int kMath>
MF_DEVICE void read_columns(const unsigned char* x, int row, int block, int t, Columns<kMath>& out) {
  const unsigned char* at = x + row * wide_row_bytes(kMath) + (block * 32 + 4 * t) * Traits<kMath>::kXBytes;
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    if constexpr (Traits<kMath>::kExact) {
      out.halves[h][0] = *reinterpret_cast<const uint32_t*>(at + 16 * h);
    } else {
      const uint2 v = *reinterpret_cast<const uint2*>(at + 32 * h);
      out.halves[h][0] = v.x, out.halves[h][1] = v.y;
    }
  }
}

template <int kMath, int kBits>
__global__ void __launch_bounds__(kWideWarps * 32, kBits <= 6 ? 3 : 2) linear_wide(const __grid_constant__ LinearParams p) {
  using T = Traits<kMath>;
  using Sum = typename T::Sum;
  const WideSpace space(p, T::kExact, kBits);
  unsigned char* const shared = shared_memory();
  uint32_t* const table = reinterpret_cast<uint32_t*>(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  unsigned char* const raw = shared + space.raw_at + warp * 2 * space.scales.raw_bytes;
  float* const wide = reinterpret_cast<float*>(shared + space.wide_at) + warp * space.scales.wide_floats;
  unsigned char* const x_ring = shared + space.x_at;
  constexpr int kXBytes = kWideRows * wide_row_bytes(kMath);

  const int64_t panels = (p.n + 15) / 16, own_panel = int64_t(blockIdx.x) * kWideWarps + warp;
  const int64_t panel = own_panel < panels ? own_panel : panels - 1;  // a warp past the end repeats the last, unstored
  const int64_t first_row = int64_t(blockIdx.y) * kWideRows;
  const uint8_t* const codes_at = p.codes + panel * p.panel_bytes;
  const int slot_blocks = p.slot_k / 32;
  const int first_chunk = blockIdx.z * p.chunks_per_split, past = first_chunk + p.chunks_per_split;
  const int last_chunk = past < p.chunks ? past : p.chunks;

  if (space.table_bytes) fill_table(table, p.decoder, 1 << kBits);
  uint32_t origin[2] = {};
  if constexpr (!T::kExact) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      origin[r] = origin_of<kMath>(p.decoder.origin);
      if (p.zero_points && p.folds <= 1 && p.groups)
        origin[r] = origin_of<kMath>(widen_zero_point(p, p.zero_points, panel * 16 + g + 8 * r));
    }
  }

  Tile<kMath> tiles[kWideTiles];
  float totals[kWideTiles][4] = {};  // what several folds add up to
#pragma unroll
  for (int i = 0; i < kWideTiles; ++i) tiles[i].clear();
  int slots_left = p.slots_per_fold, fold = 0, x_group = 0, folds_left = p.folds_per_x_group;

  Codes<kBits> codes{}, coming{};
  if (first_chunk < last_chunk) codes.load(codes_at + int64_t(first_chunk) * kBits * 512, lane);
  stage_x<kMath>(p, first_row, first_chunk, last_chunk, x_ring);
  stage_scales(p, space.scales, panel, first_chunk, lane, raw);
  copy_async_commit();

  int buffer = 0;
  for (int chunk = first_chunk; chunk < last_chunk; ++chunk, buffer ^= 1) {
    if (chunk + 1 < last_chunk) coming.load(codes_at + int64_t(chunk + 1) * kBits * 512, lane);
    stage_x<kMath>(p, first_row, chunk + 1, last_chunk, x_ring + (1 - buffer) * kXBytes);
    stage_scales(p, space.scales, panel, chunk + 1, lane, raw + (1 - buffer) * space.scales.raw_bytes);
    copy_async_commit();
    copy_async_wait<1>();
    __syncthreads();
    widen_scales(p, space.scales, chunk, lane, raw + buffer * space.scales.raw_bytes, wide);
    __syncwarp();
    const unsigned char* const x = x_ring + buffer * kXBytes;

    const int parts = p.folds > 1 && slot_blocks == 0 ? 2 : 1;  // slots of half a block each, or at least a block
#pragma unroll 1
    for (int block = 0; block < kChunk / 32; ++block) {
      Weights<kMath, kBits> w;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (!T::kExact && p.zero_points && p.folds > 1) {
          const int slot = parts == 2 ? 2 * block + h : block / slot_blocks;
#pragma unroll
          for (int r = 0; r < 2; ++r) origin[r] = origin_of<kMath>(wide[(p.slots + slot) * 16 + g + 8 * r]);
        }
        w.decode(p.decoder, table, codes, 0, lane, origin, h);
      }
      codes.next_block(block);
#pragma unroll 1
      for (int part = 0; part < parts; ++part) {
#pragma unroll
        for (int i = 0; i < kWideTiles; ++i) {
          Columns<kMath> columns;
          read_columns(x, 8 * i + g, block, t, columns);
          if (parts == 1) {
            tiles[i].block(w, columns);
          } else if (part == 0) {
            tiles[i].half(w, columns, 0);
          } else {
            tiles[i].half(w, columns, 1);
          }
        }
        if (p.folds <= 1 || (parts == 1 && (block + 1) % slot_blocks)) continue;
        if (--slots_left) continue;
        if (fold < p.folds) {
          const FoldEnd<kMath> end(p, wide + (parts == 2 ? 2 * block + part : block / slot_blocks) * 16 + g, first_row + 2 * t, fold,
                                   x_group);
#pragma unroll
          for (int i = 0; i < kWideTiles; ++i) {
            Sum taken[4];
            tiles[i].take(taken);
            end.template add_tile<false>(p, i, taken, totals[i]);
          }
        }
        slots_left = p.slots_per_fold, ++fold;
        if (--folds_left == 0) folds_left = p.folds_per_x_group, ++x_group;
      }
    }
    codes = coming;
    __syncthreads();  // all warps have read x: the next copies may overwrite it
  }
  copy_async_wait<0>();
  if (own_panel >= panels) return;

#pragma unroll
  for (int i = 0; i < kWideTiles; ++i) {
    Sum taken[4];
    tiles[i].take(taken);
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t row = first_row + 8 * i + 2 * t + j % 2;
      const int local = g + j / 2 * 8;
      const int64_t output = panel * 16 + local;
      if (row >= p.m || output >= p.n) continue;
      if (p.ordered) {
        finish(p, row, output, totals[i][j]);
        continue;
      }
      Sum sum = taken[j];
      if constexpr (!T::kExact) sum += totals[i][j];
      if (p.splits > 1) {
        static_cast<Sum*>(p.partial)[(blockIdx.z * p.m + row) * p.n + output] = sum;
      } else {
        finish_whole(p, row, output, sum, OutputScale(p, panel, local));
      }
    }
  }
}

template <int kMath, int kBits>
cudaError_t launch_wide(const LinearParams& p, cudaStream_t stream) {
  const WideSpace space(p, Traits<kMath>::kExact, kBits);
  const dim3 grid(unsigned(ceil_div(p.n, 16 * kWideWarps)), unsigned(ceil_div(p.m, kWideRows)), unsigned(p.splits));
  const cudaError_t error = launch(linear_wide<kMath, kBits>, grid, kWideWarps * 32, space.bytes, stream, p);
  if (error != cudaSuccess || p.splits == 1) return error;
  return launch_split_sums<typename Traits<kMath>::Sum>(p, stream);
}

template <int kMath>
cudaError_t launch_wide(const LinearParams& p, int bits, cudaStream_t stream) {
  return for_bits(bits, [&](auto b) { return launch_wide<kMath, b>(p, stream); });
}

}  // namespace minifloat::cuda
