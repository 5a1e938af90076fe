// Many rows of x on sm_90a: 128 outputs and 64 or 128 rows of x a block, two groups of four warps. A warp keeps a panel of 16
// outputs to itself through all of K, as in wide.cuh, decodes its weights into the A operand of wgmma, and the tensor cores
// fetch x, the B operand, from shared memory themselves: a byte of x is read there once for 64 outputs, not for each 16.
//
// x comes by cp.async in slabs of 128 bytes of each row, swizzled as wgmma wants them, into a ring; slabs are staged two
// or four ahead. While one product runs, the warps decode the next one's weights. Sums leave through shared memory, so
// that outputs are stored next to each other.
#pragma once

#include "fold.cuh"
#include "split.cuh"
#include "warpgroup_space.h"
#include "wgmma.cuh"

namespace minifloat::cuda {

template <int kMath>
constexpr int kSlabK = kSlabBytes / Traits<kMath>::kXBytes;
template <int kMath>
constexpr int kStepK = 32 / Traits<kMath>::kXBytes;  // K of one wgmma
constexpr int kSteps = kSlabBytes / 32;              // in a slab

// Tensor cores keep few bits of a sum of 8-bit floats: after so many products it goes on in float32 (docs/numerics.md).
constexpr int kFloat8Steps = 128 / 32;

constexpr int kRowBlocksTogether = 8;  // blocks that run at the same time share weights and rows of x in L2

struct WarpgroupPlace {
  int64_t output_block, row_block;
  MF_DEVICE WarpgroupPlace(const LinearParams& p, int tile_rows) {
    const int64_t output_blocks = (p.n + kWarpgroupOutputs - 1) / kWarpgroupOutputs, row_blocks = (p.m + tile_rows - 1) / tile_rows;
    const int64_t bundle = blockIdx.x / (kRowBlocksTogether * output_blocks), first = bundle * kRowBlocksTogether;
    const int64_t within = blockIdx.x % (kRowBlocksTogether * output_blocks);
    const int64_t together = row_blocks - first < kRowBlocksTogether ? row_blocks - first : kRowBlocksTogether;
    row_block = first + within % together, output_block = within / together;
  }
};

// 128 bytes of each of the block's rows of x, from byte `from` of the row on; zeros for rows past the last.
template <int kMath, int kTiles>
MF_DEVICE void stage_slab(const LinearParams& p, const void* x, int64_t first_row, int64_t from, unsigned char* to) {
#pragma unroll
  for (int i = 0; i < 8 * kTiles * 8 / kWarpgroupThreads; ++i) {
    const int row = threadIdx.x / 8 + i * (kWarpgroupThreads / 8), piece = threadIdx.x % 8;
    const bool valid = first_row + row < p.m;
    const int64_t at = (valid ? first_row + row : 0) * p.k_padded * Traits<kMath>::kXBytes + from + piece * 16;
    copy_async(to + row * kSwizzleRow + (piece ^ row % 8) * 16, static_cast<const uint8_t*>(x) + at, valid);
  }
}

// Sum j of tile i: one product's, or those of two digits' products: low * low, both mixed, high * high.
template <class Register, int kProducts, int kTiles>
MF_DEVICE auto take(const Register (&sums)[kProducts][kTiles][4], int i, int j) {
  if constexpr (kProducts == 1) {
    return settled(sums[0][i][j]);
  } else {
    return uint32_t(settled(sums[0][i][j])) + (uint32_t(settled(sums[1][i][j])) << 8) + (uint32_t(settled(sums[2][i][j])) << 16);
  }
}

template <bool kPlain, int kMath, class Register, int kProducts, int kTiles>
MF_DEVICE void add_fold(const LinearParams& p, const FoldEnd<kMath>& end, const Register (&sums)[kProducts][kTiles][4],
                        float (&totals)[kTiles][4]) {
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
    typename Traits<kMath>::Sum taken[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) taken[j] = take(sums, i, j);
    end.template add_tile<kPlain>(p, i, taken, totals[i]);
  }
}

template <int kMath, int kBits, int kTiles>
__global__ void __launch_bounds__(kWarpgroupThreads, 1)
    linear_warpgroup(const __grid_constant__ LinearParams p) {
#ifdef MF_HAS_WGMMA
  using T = Traits<kMath>;
  using Register = std::conditional_t<T::kExact, int32_t, float>;
  using Sum = typename T::Sum;
  constexpr int kRows = 8 * kTiles, kRing = slabs_in_ring(kRows), kAhead = kRing - 2;
  constexpr int kDigits = T::kDigits, kProducts = 2 * kDigits - 1, kSlab = kRows * kSlabBytes;
  constexpr int kSlabs = kChunk / kSlabK<kMath>;
  const WarpgroupSpace space(p, T::kBytes, kBits, kRows, kDigits);
  unsigned char* const shared = shared_memory();
  uint32_t* const table = reinterpret_cast<uint32_t*>(shared + space.table_at);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  unsigned char* const raw = shared + space.raw_at + warp * 2 * space.scales.raw_bytes;
  float* const wide = reinterpret_cast<float*>(shared + space.wide_at) + warp * space.scales.wide_floats;

  const WarpgroupPlace place(p, kRows);
  const int64_t panels = (p.n + 15) / 16, own_panel = place.output_block * kWarpgroupWarps + warp;
  const int64_t panel = own_panel < panels ? own_panel : panels - 1;  // a warp past the end repeats the last, unstored
  const int64_t first_row = place.row_block * kRows;
  const uint8_t* const codes_at = p.codes + panel * p.panel_bytes;
  const int first_chunk = blockIdx.z * p.chunks_per_split, past = first_chunk + p.chunks_per_split;
  const int last_chunk = past < p.chunks ? past : p.chunks;

  if (space.table_bytes) fill_table(table, p.decoder, 1 << kBits);
  uint32_t origin[2] = {};
  if constexpr (!T::kBytes) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      origin[r] = origin_of<kMath>(p.decoder.origin);
      if (p.zero_points && p.folds <= 1 && p.groups)
        origin[r] = origin_of<kMath>(widen_zero_point(p, p.zero_points, panel * 16 + g + 8 * r));
    }
  }

  // Slabs and chunks are counted from the block's first. Every call makes a group of copies, so that they can be counted.
  const int slabs = (last_chunk - first_chunk) * kSlabs;
  const auto stage = [&](int slab) {
    if (slab < slabs) {
      const int64_t from = (int64_t(first_chunk) * kSlabs + slab) * kSlabBytes;
      unsigned char* const to = shared + slab % kRing * kDigits * kSlab;
      stage_slab<kMath, kTiles>(p, p.x, first_row, from, to);
      if constexpr (kDigits == 2) stage_slab<kMath, kTiles>(p, p.x_high, first_row, from, to + kSlab);
      const int chunk = slab / kSlabs;
      if (slab % kSlabs == 0)
        stage_scales(p, space.scales, panel, first_chunk + chunk, lane, raw + chunk % 2 * space.scales.raw_bytes);
    }
    copy_async_commit();
  };

  Register sums[kProducts][kTiles][4];
#pragma unroll
  for (int i = 0; i < kProducts * kTiles * 4; ++i) clear_sum(sums[i / (kTiles * 4)][i / 4 % kTiles][i % 4]);
  float totals[kTiles][4] = {};  // what several folds add up to
  uint32_t a[2][kDigits][4];
  bool fresh = true;  // the next product starts from zero
  int steps_per_fold = p.folds > 1 ? p.slots_per_fold * p.slot_k / kStepK<kMath> : 1 << 30;
  if (kMath == kMathFloat8 && steps_per_fold > kFloat8Steps) steps_per_fold = kFloat8Steps;
  int steps_left = steps_per_fold, fold = 0, x_group = 0, folds_left = p.folds_per_x_group;

  Codes<kBits> codes{}, coming{};
  if (slabs > 0) codes.load(codes_at + int64_t(first_chunk) * kBits * 512, lane);
#pragma unroll
  for (int slab = 0; slab < kAhead; ++slab) stage(slab);

  for (int chunk = first_chunk; chunk < last_chunk; ++chunk) {
#pragma unroll 1
    for (int pair = 0; pair < kSlabs * kSteps / 2; ++pair) {  // of products
      const int slab = (chunk - first_chunk) * kSlabs + pair / (kSteps / 2), from = pair % (kSteps / 2) * 64;
      if (from == 0) {
        copy_async_wait<kAhead - 1>();
        fence_async_proxy();
        __syncthreads();  // the slab is here, and no product reads the one before the last any more
        if (pair == 0) {  // the fence may wait for loads too, so the next codes are asked for after it
          if (chunk + 1 < last_chunk) coming.load(codes_at + int64_t(chunk + 1) * kBits * 512, lane);
          widen_scales(p, space.scales, chunk, lane, raw + (chunk - first_chunk) % 2 * space.scales.raw_bytes, wide);
          __syncwarp();
        }
        stage(slab + kAhead);
      }
      const uint32_t x = shared_address(shared + slab % kRing * kDigits * kSlab) + from;

#pragma unroll
      for (int step = 0; step < 2; ++step) {
        const int slot = (2 * pair + step) * kStepK<kMath> >> p.slot_shift;
        Weights<kMath, kBits> w;
        uint32_t(&now)[kDigits][4] = a[step];  // the product before the last, which read these, is complete
        if constexpr (T::kBytes) {
          w.decode(p.decoder, table, codes, step, lane, origin, 0);
          w.decode(p.decoder, table, codes, step, lane, origin, 1);
#pragma unroll
          for (int i = 0; i < kDigits * 4; ++i) now[i / 4][i % 4] = w.halves[i / 2 % 2][i / 4 * 2 + i % 2];
        } else {
          if (p.zero_points && p.folds > 1) {
#pragma unroll
            for (int r = 0; r < 2; ++r) origin[r] = origin_of<kMath>(wide[(p.slots + slot) * 16 + g + 8 * r]);
          }
          w.decode(p.decoder, table, codes, 0, lane, origin, step);
#pragma unroll
          for (int i = 0; i < 4; ++i) now[0][i] = w.halves[step][i];
        }
        warpgroup_fence(sums, now);
#pragma unroll
        for (int i = 0; i < kDigits; ++i) {  // digits of the weights, and of x
#pragma unroll
          for (int j = 0; j < kDigits; ++j)
            warpgroup_multiply<kMath>(sums[i + j], now[i], swizzled_rows(x + j * kSlab + step * 32), !fresh || (i == 1 && j == 0));
        }
        warpgroup_commit();
        warpgroup_wait<1>();
        fresh = false;
        if ((kMath != kMathFloat8 && p.folds <= 1) || --steps_left) continue;
        warpgroup_wait<0>();
        if (kMath == kMathFloat8 && p.folds <= 1) {
#pragma unroll
          for (int i = 0; i < kTiles; ++i) {
#pragma unroll
            for (int j = 0; j < 4; ++j) totals[i][j] += float(take(sums, i, j));
          }
        } else if (!T::kExact || fold < p.folds) {
          const FoldEnd<kMath> end(p, wide + slot * 16 + g, first_row + 2 * t, fold, x_group);
          if (end.plain(p)) {
            add_fold<true>(p, end, sums, totals);
          } else {
            add_fold<false>(p, end, sums, totals);
          }
        }
        fresh = true;
        steps_left = steps_per_fold, ++fold;
        if (--folds_left == 0) folds_left = p.folds_per_x_group, ++x_group;
      }
#pragma unroll
      for (int block = 0; block < 2 * kStepK<kMath> / 32; ++block) codes.next_block(T::kBytes ? block : pair);
    }
    codes = coming;
  }
  warpgroup_wait<0>();
  copy_async_wait<0>();
  __syncthreads();  // nobody reads x any more: its place takes the sums

  uint32_t* const all_sums = reinterpret_cast<uint32_t*>(shared);
#pragma unroll
  for (int i = 0; i < kTiles; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      uint32_t word;
      if constexpr (T::kExact) {
        word = p.ordered ? bits_of(totals[i][j]) : uint32_t(take(sums, i, j));
      } else {
        word = bits_of(fresh ? totals[i][j] : take(sums, i, j) + totals[i][j]);  // fresh: they are among the totals
      }
      all_sums[(8 * i + 2 * t + j % 2) * kSumsStride + warp * 16 + g + j / 2 * 8] = word;
    }
  }
  __syncthreads();

  const int local = threadIdx.x % kWarpgroupOutputs;
  const int64_t output = place.output_block * kWarpgroupOutputs + local;
  if (output >= p.n) return;
  const OutputScale output_scale(p, output / 16, int(output % 16));
  for (int r = threadIdx.x / kWarpgroupOutputs; r < kRows && first_row + r < p.m; r += kWarpgroupThreads / kWarpgroupOutputs) {
    const int64_t row = first_row + r;
    const uint32_t word = all_sums[r * kSumsStride + local];
    Sum sum;
    if constexpr (T::kExact) {
      sum = word;
    } else {
      sum = float_of(word);
    }
    if (p.ordered) {
      finish(p, row, output, float_of(word));
    } else if (p.splits > 1) {
      static_cast<Sum*>(p.partial)[(blockIdx.z * p.m + row) * p.n + output] = sum;
    } else {
      finish_whole(p, row, output, sum, output_scale);
    }
  }
#endif
}

template <int kMath, int kBits, int kTiles>
cudaError_t launch_warpgroup(const LinearParams& p, cudaStream_t stream) {
  const WarpgroupSpace space(p, Traits<kMath>::kBytes, kBits, 8 * kTiles, Traits<kMath>::kDigits);
  const int64_t blocks = ceil_div(p.n, kWarpgroupOutputs) * ceil_div(p.m, 8 * kTiles);
  const cudaError_t error = launch(linear_warpgroup<kMath, kBits, kTiles>, dim3(unsigned(blocks), 1, unsigned(p.splits)),
                                   kWarpgroupThreads, space.bytes, stream, p);
  if (error != cudaSuccess || p.splits == 1) return error;
  return launch_split_sums<typename Traits<kMath>::Sum>(p, stream);
}

template <int kMath, int kBits>
cudaError_t launch_warpgroup(const LinearParams& p, cudaStream_t stream) {
  if constexpr (Traits<kMath>::kDigits == 1)  // two digits have three sums: no registers for the larger tile
    if (p.columns == kMostTileRows) return launch_warpgroup<kMath, kBits, kMostTileRows / 8>(p, stream);
  return launch_warpgroup<kMath, kBits, 8>(p, stream);
}

template <int kMath>
cudaError_t launch_warpgroup(const LinearParams& p, int bits, cudaStream_t stream) {
  return for_bits(bits, [&](auto b) { return launch_warpgroup<kMath, b>(p, stream); });
}

}  // namespace minifloat::cuda
