// More rows of x: 64 outputs and 64 rows of x a block. Each of four warps keeps a panel of 16 outputs to itself and runs
// through K alone, so the exact contract's order over folds is simply the order of the loop.
//
// x comes through shared memory (panels.cuh), weights go from memory to registers as in narrow.cuh. Where outputs are too few to fill the GPU and the order of float additions does not matter,
// blockIdx.z splits K; split_sums then adds the parts in their order.
#pragma once

#include "panels.cuh"
#include "split.cuh"

namespace minifloat::cuda {

// One chunk of the block's rows of x into shared memory, rows kRowBytes apart.
template <int kMath>
MF_DEVICE void stage_x(const LinearParams& p, int64_t first_row, int chunk, unsigned char* to) {
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
  const PanelBlock block(p, space, shared);
  const int lane = block.lane, g = block.g, t = block.t, slot_mask = p.slot_k / 32 - 1;
  constexpr int kXBytes = kWideRows * wide_row_bytes(kMath);

  if (space.table_bytes) fill_table(table, p.decoder, 1 << kBits);
  uint32_t origin[2] = {};
  if constexpr (!T::kExact) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      origin[r] = origin_of<kMath>(p.decoder.origin);
      if (p.zero_points && p.folds <= 1 && p.groups)
        origin[r] = origin_of<kMath>(widen_zero_point(p, p.zero_points, block.panel * 16 + g + 8 * r));
    }
  }

  Tile<kMath> tiles[kWideTiles];
  float totals[kWideTiles][4] = {};  // what several folds add up to
#pragma unroll
  for (int i = 0; i < kWideTiles; ++i) tiles[i].clear();
  FoldCount<kMath> folds(p);

  const auto stage = [&](int chunk, unsigned char* to) { stage_x<kMath>(p, block.first_row, chunk, to); };
  for_chunks<kBits, kXBytes>(p, space.scales, block, stage, [&](Codes<kBits>& codes, const unsigned char* x) {
    const int parts = p.folds > 1 && p.slot_k < 32 ? 2 : 1;  // slots of half a block each, or at least a block
#pragma unroll 1
    for (int b = 0; b < kChunk / 32; ++b) {
      Weights<kMath, kBits> w;
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        if (!T::kExact && p.zero_points && p.folds > 1) {
          const int slot = (b * 32 + h * 16) >> p.slot_shift;
#pragma unroll
          for (int r = 0; r < 2; ++r) origin[r] = origin_of<kMath>(block.wide[(p.slots + slot) * 16 + g + 8 * r]);
        }
        w.decode(p.decoder, table, codes, 0, lane, origin, h);
      }
      codes.next_block(b);
#pragma unroll 1
      for (int part = 0; part < parts; ++part) {
#pragma unroll
        for (int i = 0; i < kWideTiles; ++i) {
          Columns<kMath> columns;
          read_columns(x, 8 * i + g, b, t, columns);
          if (parts == 1) {
            tiles[i].block(w, columns);
          } else if (part == 0) {
            tiles[i].half(w, columns, 0);
          } else {
            tiles[i].half(w, columns, 1);
          }
        }
        if (p.folds <= 1 || (parts == 1 && (b & slot_mask) != slot_mask)) continue;
        folds.end_slot(p, block, (b * 32 + part * 16) >> p.slot_shift, [&](const FoldEnd<kMath>& end) {
#pragma unroll
          for (int i = 0; i < kWideTiles; ++i) {
            Sum taken[4];
            tiles[i].take(taken);
            end.template add_tile<false>(p, i, taken, totals[i]);
          }
        });
      }
    }
  });
  if (!block.stores) return;

#pragma unroll
  for (int i = 0; i < kWideTiles; ++i) {
    Sum taken[4];
    tiles[i].take(taken);
    if constexpr (!T::kExact) {
#pragma unroll
      for (int j = 0; j < 4; ++j) taken[j] += totals[i][j];
    }
    store_tile(p, block, i, p.ordered, taken, totals[i]);
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
