// One row of x times weights of one bit, in the float contract: sums of four k's from tables (LUT-GEMM, Park et al., 2022).
//
// A nibble of the layout's one-bit plane is four weights of one output: k's 16 apart. So a table of the 16 sums that four k's
// of x can give turns four weights into one load and one addition. Tables depend on x alone: a warp fills those of a chunk,
// 64 in all, and uses each for 32 outputs, g and g + 8 of two panels. Otherwise as lanes.cu: chunks shared out over eight
// warps, sums added in a fixed order.
#include "finish.cuh"
#include "launch.cuh"
#include "tables_space.h"

namespace minifloat::cuda {
namespace {

constexpr int kLanesTables = 2;  // that each lane fills, of four k's

// Byte b of word w, lane 4 g + t: k's 64 w + 16 j + 4 t + byte_of_k(b), j from 0 to 3. Lane / 4 takes the bytes in turn.
MF_DEVICE int first_k(int table, int t) { return table / 4 * 64 + 4 * t + byte_of_k(table % 4); }

MF_DEVICE void load_x(const LinearParams& p, int64_t row, int chunk, int lane, float (&x)[kLanesTables][4]) {
#pragma unroll
  for (int i = 0; i < kLanesTables; ++i)
#pragma unroll
    for (int j = 0; j < 4; ++j)
      x[i][j] = load_element(p.x, row * p.k_padded + int64_t(chunk) * kChunk + first_k(lane / 4 + 8 * i, lane % 4) + 16 * j, p.y_type);
}

MF_DEVICE void fill_tables(const TablesParams& p, const float (&x)[kLanesTables][4], int lane, float* tables) {
#pragma unroll
  for (int i = 0; i < kLanesTables; ++i) {
    float first[4], second[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      first[e] = add(mul(p.values[e & 1], x[i][0]), mul(p.values[e >> 1], x[i][1]));
      second[e] = add(mul(p.values[e & 1], x[i][2]), mul(p.values[e >> 1], x[i][3]));
    }
    float* const to = tables + (lane / 4 + 8 * i) * kTableStride + lane % 4;
#pragma unroll
    for (int e = 0; e < 16; ++e) to[4 * e] = add(first[e & 3], second[e >> 2]);
  }
}

__global__ void __launch_bounds__(kNarrowWarps * 32, 2) linear_tables(const __grid_constant__ TablesParams p) {
  const TablesSpace space(p);
  unsigned char* const shared = shared_memory();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  unsigned char* const raw = shared + warp * kTablePanels * 2 * space.scales.raw_bytes;
  float* const wide = reinterpret_cast<float*>(shared + space.wide_at) + warp * kTablePanels * space.scales.wide_floats;
  const uint32_t own_tables = space.tables_at + warp * kTablesBytes + 4 * t;  // entries of this lane of the quad
  float* const tables = reinterpret_cast<float*>(shared + space.tables_at) + warp * kTablesOfLane * kTableStride;
  float* const all_sums = reinterpret_cast<float*>(shared + space.sums_at);
  const int64_t panels = (p.n + 15) / 16, row = blockIdx.y;
  const int slot_words = p.slot_k / 64;  // 1, 2 or 4

  const uint8_t* codes_at[kTablePanels];
  int64_t panel[kTablePanels];  // past the last, the last again, unstored
  uint4 codes[kTablePanels], coming[kTablePanels];  // of this chunk and the warp's next one
  const auto load_codes = [&](int i, int chunk) {
    return chunk < p.chunks ? load_streaming(codes_at[i] + int64_t(chunk) * 512) : uint4{};
  };
#pragma unroll
  for (int i = 0; i < kTablePanels; ++i) {
    panel[i] = int64_t(blockIdx.x) * kTablePanels + i;
    if (panel[i] >= panels) panel[i] = panels - 1;
    codes_at[i] = p.codes + panel[i] * p.panel_bytes + lane * 16;
    codes[i] = load_codes(i, warp);
    stage_scales(p, space.scales, panel[i], warp, lane, raw + 2 * i * space.scales.raw_bytes);
  }
  copy_async_commit();
  float x[kLanesTables][4];
  if (warp < p.chunks) load_x(p, row, warp, lane, x);

  float sums[kTablePanels][2] = {}, totals[kTablePanels][2] = {};
  int buffer = 0;
  for (int chunk = warp; chunk < p.chunks; chunk += kNarrowWarps, buffer ^= 1) {
    const int next = chunk + kNarrowWarps;
#pragma unroll
    for (int i = 0; i < kTablePanels; ++i) {
      coming[i] = load_codes(i, next);
      stage_scales(p, space.scales, panel[i], next, lane, raw + (2 * i + 1 - buffer) * space.scales.raw_bytes);
    }
    copy_async_commit();
    fill_tables(p, x, lane, tables);
    if (next < p.chunks) load_x(p, row, next, lane, x);
    copy_async_wait<1>();
    __syncwarp();
#pragma unroll
    for (int i = 0; i < kTablePanels; ++i)
      widen_scales(p, space.scales, chunk, lane, raw + (2 * i + buffer) * space.scales.raw_bytes, wide + i * space.scales.wide_floats);
    __syncwarp();
#pragma unroll
    for (int w = 0; w < 4; ++w) {
#pragma unroll
      for (int i = 0; i < kTablePanels; ++i) {
        const uint4& now = codes[i];
        const uint32_t word = w == 0 ? now.x : w == 1 ? now.y : w == 2 ? now.z : now.w;
#pragma unroll
        for (int b = 0; b < 4; ++b) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const int bit = 8 * b + 4 * r;  // of the nibble; entries are 16 bytes apart
            const uint32_t at = and_or(bit ? word >> (bit - 4) : word << 4, 0xf0, own_tables);
            sums[i][r] += *reinterpret_cast<const float*>(shared + (4 * w + b) * kTableStride * 4 + at);
          }
        }
        if (p.folds <= 1 || ((w + 1) & (slot_words - 1))) continue;
        const int slot = slot_words == 1 ? w : slot_words == 2 ? w / 2 : 0;
#pragma unroll
        for (int r = 0; r < 2; ++r) {
          totals[i][r] += sums[i][r] * wide[i * space.scales.wide_floats + slot * 16 + g + 8 * r];
          sums[i][r] = 0;
        }
      }
    }
#pragma unroll
    for (int i = 0; i < kTablePanels; ++i) codes[i] = coming[i];
    __syncwarp();  // all lanes have read the tables and scales
  }
  copy_async_wait<0>();

#pragma unroll
  for (int i = 0; i < kTablePanels; ++i)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = sums[i][r] + totals[i][r];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (t == 0) all_sums[(warp * kTablePanels + i) * 16 + g + 8 * r] = sum;
    }
  __syncthreads();
  const int64_t output = int64_t(blockIdx.x) * kTablePanels * 16 + threadIdx.x;
  if (threadIdx.x >= kTablePanels * 16 || output >= p.n) return;
  float sum = 0;
  for (int w = 0; w < kNarrowWarps; ++w) sum += all_sums[w * kTablePanels * 16 + threadIdx.x];
  finish_whole(p, row, output, sum, OutputScale(p, output / 16, int(output % 16)));
}

}  // namespace

cudaError_t linear_tables_float32(const TablesParams& p, cudaStream_t stream) {
  const TablesSpace space(p);
  const dim3 grid(unsigned(ceil_div(p.n, 16 * kTablePanels)), unsigned(p.m));
  return launch(linear_tables, grid, kNarrowWarps * 32, space.bytes, stream, p);
}

}  // namespace minifloat::cuda
