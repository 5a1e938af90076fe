// Few rows of x: one panel of 16 outputs a block, its K split over eight warps, every chunk of the weight read once.
//
// The weight goes from memory to registers (the next chunk is on its way while one is multiplied: at 4 bits 2 KiB a warp), by way
// of shared memory where that is not enough (copied_ahead). There it is decoded into the A operand of mma.sync, and multiplied with
// up to 16 rows of x, which come through L1.
// Sums meet in shared memory. They are added in a fixed order, so equal calls give equal bits:
//   a single fold, or the float contract: once, at the end, warp after warp;
//   exact with several folds: after each round of chunks (one a warp), in the order of K that the contract asks for. Folds that
//   lie in a chunk are multiplied with their scales before, by their warp's lanes: one after another they are only added.
#pragma once

#include "finish.cuh"
#include "launch.cuh"
#include "multiply.cuh"
#include "narrow_space.h"

namespace minifloat::cuda {

// The B operand of a block of 32 k's from row-major x; zeros where the row is missing.
template <int kMath>
MF_DEVICE void load_columns(const LinearParams& p, int64_t element, bool valid, Columns<kMath>& x) {
#pragma unroll
  for (int h = 0; h < 2; ++h) {
    x.halves[h][0] = x.halves[h][1] = 0;
    if (!valid) continue;
    if constexpr (Traits<kMath>::kExact) {
      x.halves[h][0] = load_cached(reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(p.x) + element + 16 * h));
      if constexpr (kMath == kMathInt16)
        x.halves[h][1] =
            load_cached(reinterpret_cast<const uint32_t*>(static_cast<const uint8_t*>(p.x_high) + element + 16 * h));
    } else {
      const uint2 v = load_cached(reinterpret_cast<const uint2*>(static_cast<const uint16_t*>(p.x) + element + 16 * h));
      x.halves[h][0] = v.x, x.halves[h][1] = v.y;
    }
  }
}

// A lane's four sums of a tile into [column][kColumnStride].
template <class Sum>
MF_DEVICE void store_sums(Sum* to, int columns, int tile, int lane, const Sum (&sums)[4]) {
  const int g = lane / 4, column = 8 * tile + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < 4; ++i)
    if (column + i % 2 < columns) to[(column + i % 2) * kColumnStride + g + i / 2 * 8] = sums[i];
}

// The sums of a warp's chunk, each of a whole fold, times their scales, in their places.
MF_DEVICE void scale_folds(const LinearParams& p, int64_t first_row, int columns, int chunk, int lane, const float* scales,
                           uint32_t* sums) {
  const int output = lane % 16;
  for (int slot = lane / 16; slot < p.slots; slot += 2) {
    const int fold = chunk * p.slots + slot, x_group = p.x_group_of.quotient(fold);
    if (fold >= p.folds) return;  // padding
    const float scale = scales[slot * 16 + output], zero_point = p.zero_points ? scales[(p.slots + slot) * 16 + output] : 0;
    uint32_t* const at = sums + slot * p.columns * kColumnStride + output;
#pragma unroll 4
    for (int c = 0; c < columns; ++c)
      at[c * kColumnStride] = bits_of(fold_product(p, first_row + c, fold, x_group, at[c * kColumnStride], scale, zero_point));
  }
}

// Two blocks share a multiprocessor's registers, unless two digits or two chunks of codes in registers take too many.
template <int kMath, int kBits>
constexpr int kNarrowBlocks = kMath == kMathInt16 || (kBits >= 7 && copied_ahead(Math(kMath), kBits) == 0) ? 1 : 2;

template <int kMath, int kBits>
__global__ void __launch_bounds__(kNarrowWarps * 32, kNarrowBlocks<kMath, kBits>) linear_narrow(const __grid_constant__ LinearParams p) {
  using T = Traits<kMath>;
  using Sum = typename T::Sum;
  constexpr int kAhead = copied_ahead(Math(kMath), kBits), kPlaces = kAhead ? kAhead : 2;
  const NarrowSpace space(p, T::kExact, kBits, kAhead);
  unsigned char* const shared = shared_memory();
  uint32_t* const table = reinterpret_cast<uint32_t*>(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  unsigned char* const raw = shared + space.raw_at + warp * kPlaces * space.scales.raw_bytes;
  unsigned char* const copied = shared + space.codes_at + warp * kAhead * kBits * 512;
  float* const all_wide = reinterpret_cast<float*>(shared + space.wide_at);
  Sum* const all_sums = reinterpret_cast<Sum*>(shared + space.sums_at);

  // Blocks of the same panel are neighbours, so that they find its codes in L2.
  const int64_t panel = blockIdx.y, first_row = int64_t(blockIdx.x) * p.columns;
  const int columns = int(p.m - first_row < p.columns ? p.m - first_row : p.columns);
  const uint8_t* const chunks = p.codes + panel * p.panel_bytes;
  const bool half_blocks = p.slot_k < 32;  // a slot is half a block
  const int slot_mask = p.slot_k / 32 - 1;  // else: of a block's place in its slot

  // The one output and row of x that this thread finishes.
  const int finish_row = threadIdx.x % 16, finish_column = threadIdx.x / 16;
  const bool finishes = finish_column < columns;
  const int64_t output = panel * 16 + finish_row, row = first_row + finish_column;
  const OutputScale output_scale(p, panel, finish_row);
  const bool whole_folds = p.ordered && p.slots_per_fold == 1;
  Chain chain(p);

  Codes<kBits> codes{}, coming{};
  const auto stage = [&](int chunk, int place) {  // starts the copies of a chunk
    stage_scales(p, space.scales, panel, chunk, lane, raw + place * space.scales.raw_bytes);
    if constexpr (kAhead > 0) {
      if (chunk < p.chunks) Codes<kBits>::copy(copied + place * kBits * 512, chunks + int64_t(chunk) * kBits * 512, lane);
    }
    copy_async_commit();
  };
  if constexpr (kAhead == 0) {
    if (warp < p.chunks) codes.load(chunks + int64_t(warp) * kBits * 512, lane);
  }
#pragma unroll
  for (int i = 0; i < (kAhead ? kAhead : 1); ++i) stage(warp + i * kNarrowWarps, i);

  if constexpr (kTerms<kMath> > 1) {
    fill_terms<kTerms<kMath>>(table, p.decoder, 1 << kBits);
  } else if (space.table_bytes) {
    fill_table(table, p.decoder, 1 << kBits);
  }
  __syncthreads();

  uint32_t origin[2] = {};
  if constexpr (!T::kExact) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      origin[r] = origin_of<kMath>(p.decoder.origin);
      if (p.zero_points && p.folds <= 1 && p.groups)
        origin[r] = origin_of<kMath>(widen_zero_point(p, p.zero_points, panel * 16 + g + 8 * r));
    }
  }

  Tile<kMath> tiles[kNarrowTiles];
  float totals[kNarrowTiles][4] = {};
#pragma unroll
  for (int i = 0; i < kNarrowTiles; ++i) tiles[i].clear();

  const int rounds = (p.chunks + kNarrowWarps - 1) / kNarrowWarps;
  for (int round = 0; round < rounds; ++round) {
    const int chunk = round * kNarrowWarps + warp, buffer = round % 2, place = round % kPlaces;
    if constexpr (kAhead == 0) {
      const int next = chunk + kNarrowWarps;
      if (next < p.chunks) coming.load(chunks + int64_t(next) * kBits * 512, lane);
      stage(next, 1 - place);
    }
    copy_async_wait<kAhead ? kAhead - 1 : 1>();
    __syncwarp();
    float* const wide = all_wide + ((buffer & (space.wide_buffers - 1)) * kNarrowWarps + warp) * space.scales.wide_floats;
    widen_scales(p, space.scales, chunk, lane, raw + place * space.scales.raw_bytes, wide);
    if constexpr (kAhead > 0) codes.take(copied + place * kBits * 512, lane);
    __syncwarp();
    if constexpr (kAhead > 0) stage(chunk + kAhead * kNarrowWarps, place);  // all lanes have read what was there
    Sum* const sums = all_sums + ((p.ordered ? buffer : 0) * kNarrowWarps + warp) * space.warp_sums;

    const auto end_slot = [&](int slot) {
#pragma unroll
      for (int i = 0; i < kNarrowTiles; ++i) {
        if (8 * i >= columns) continue;
        Sum taken[4];
        tiles[i].take(taken);
        if constexpr (T::kExact) {
          store_sums(sums + slot * p.columns * kColumnStride, columns, i, lane, taken);
        } else {
#pragma unroll
          for (int j = 0; j < 4; ++j) totals[i][j] += taken[j] * wide[slot * 16 + g + j / 2 * 8];
        }
      }
    };
    const auto begin_slot = [&](int slot) {
      if constexpr (!T::kExact) {
        if (!p.zero_points) return;
#pragma unroll
        for (int r = 0; r < 2; ++r) origin[r] = origin_of<kMath>(wide[(p.slots + slot) * 16 + g + 8 * r]);
      }
    };

    if (chunk < p.chunks) {
#pragma unroll
      for (int block = 0; block < kChunk / 32; ++block) {
        Columns<kMath> x[kNarrowTiles];
#pragma unroll
        for (int i = 0; i < kNarrowTiles; ++i) {
          if (8 * i >= columns) continue;
          load_columns(p, (first_row + 8 * i + g) * p.k_padded + int64_t(chunk) * kChunk + block * 32 + 4 * t,
                       8 * i + g < columns, x[i]);
        }
        Weights<kMath, kBits> w;
        if (p.folds > 1 && half_blocks) {
#pragma unroll
          for (int h = 0; h < 2; ++h) {
            begin_slot(2 * block + h);
            w.decode(p.decoder, table, codes, block, lane, origin, h);
#pragma unroll
            for (int i = 0; i < kNarrowTiles; ++i)
              if (8 * i < columns) tiles[i].half(w, x[i], h);
            end_slot(2 * block + h);
          }
        } else {
          if (p.folds > 1 && (block & slot_mask) == 0) begin_slot(block * 32 >> p.slot_shift);
          w.decode(p.decoder, table, codes, block, lane, origin, 0);
          w.decode(p.decoder, table, codes, block, lane, origin, 1);
#pragma unroll
          for (int i = 0; i < kNarrowTiles; ++i)
            if (8 * i < columns) tiles[i].block(w, x[i]);
          if (p.folds > 1 && (block & slot_mask) == slot_mask) end_slot(block * 32 >> p.slot_shift);
        }
      }
      if constexpr (T::kExact) {
        __syncwarp();
        if (whole_folds) scale_folds(p, first_row, columns, chunk, lane, wide, sums);
      }
    }
    if constexpr (kAhead == 0) codes = coming;

    if constexpr (T::kExact) {
      if (!p.ordered) continue;
      __syncthreads();
      if (!finishes) continue;
      const Sum* from = all_sums + buffer * kNarrowWarps * space.warp_sums + finish_column * kColumnStride + finish_row;
      if (whole_folds) {  // slot after slot, warp after warp: evenly spaced, in the order of K
        const int left = p.folds - round * kNarrowWarps * p.slots, most = kNarrowWarps * p.slots;
#pragma unroll 8
        for (int i = 0; i < (left < most ? left : most); ++i)
          chain.acc = add(chain.acc, float_of(from[i * p.columns * kColumnStride]));
      } else {  // a chunk is one slot
        for (int w = 0; w < kNarrowWarps && round * kNarrowWarps + w < p.chunks; ++w) {
          const float* scales = all_wide + (buffer * kNarrowWarps + w) * space.scales.wide_floats + finish_row;
          chain.add_slot(p, row, from[w * space.warp_sums], scales[0], p.zero_points ? scales[16] : 0);
        }
      }
    }
  }
  copy_async_wait<0>();

  if (!p.ordered) {
    Sum* const sums = all_sums + warp * space.warp_sums;
#pragma unroll
    for (int i = 0; i < kNarrowTiles; ++i) {
      Sum taken[4];
      tiles[i].take(taken);
      if constexpr (!T::kExact) {
#pragma unroll
        for (int j = 0; j < 4; ++j) taken[j] += totals[i][j];
      }
      store_sums(sums, columns, i, lane, taken);
    }
    __syncthreads();
  }
  if (!finishes || output >= p.n) return;
  if (p.ordered) return finish(p, row, output, chain.acc);
  Sum sum = 0;
  for (int w = 0; w < kNarrowWarps; ++w)
    sum += all_sums[w * space.warp_sums + finish_column * kColumnStride + finish_row];
  finish_whole(p, row, output, sum, output_scale);
}

template <int kMath, int kBits>
cudaError_t launch_narrow(const LinearParams& p, cudaStream_t stream) {
  const NarrowSpace space(p, Traits<kMath>::kExact, kBits, copied_ahead(Math(kMath), kBits));
  const dim3 grid(unsigned(ceil_div(p.m, p.columns)), unsigned(ceil_div(p.n, 16)));
  return launch(linear_narrow<kMath, kBits>, grid, kNarrowWarps * 32, space.bytes, stream, p);
}

template <int kMath>
cudaError_t launch_narrow(const LinearParams& p, int bits, cudaStream_t stream) {
  return for_bits(bits, [&](auto b) { return launch_narrow<kMath, b>(p, stream); });
}

}  // namespace minifloat::cuda
