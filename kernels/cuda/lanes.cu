// Few rows of float32 x, or weights that no 16-bit float holds (nf4): float32 multiplications in the lanes.
//
// As in narrow.cuh a block takes a panel of 16 outputs and splits its K over eight warps. A lane multiplies its own eight
// weights of a half block with four k's of up to eight rows of x; the four lanes of an output meet at the end by shuffles,
// the warps in shared memory, in a fixed order.
#include "finish.cuh"
#include "launch.cuh"
#include "linear.h"
#include "multiply.cuh"
#include "narrow_space.h"

namespace minifloat::cuda {
namespace {

constexpr int kMaxColumns = 8;

// kColumns: the most rows of x, 1 or 8.
template <int kBits, int kColumns>
__global__ void __launch_bounds__(kNarrowWarps * 32, kColumns == 1 ? 2 : 1) linear_lanes(const __grid_constant__ LinearParams p) {
  const NarrowSpace space(p, false, kBits, 0);
  unsigned char* const shared = shared_memory();
  uint32_t* const table = reinterpret_cast<uint32_t*>(shared);
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  unsigned char* const raw = shared + space.raw_at + warp * 2 * space.scales.raw_bytes;
  float* const wide = reinterpret_cast<float*>(shared + space.wide_at) + warp * space.scales.wide_floats;
  float* const all_sums = reinterpret_cast<float*>(shared + space.sums_at);
  const int64_t panel = blockIdx.x;
  const uint8_t* const chunks = p.codes + panel * p.panel_bytes;
  const int slot_mask = p.slot_k / 16 - 1;  // of a half block's place in its slot
  const OutputScale output_scale(p, panel, threadIdx.x % 16);

  if (space.table_bytes) fill_table(table, p.decoder, 1 << kBits);
  __syncthreads();
  uint32_t origin[2];
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    origin[r] = origin_of<kMathFloat32>(p.decoder.origin);
    if (p.zero_points && p.folds <= 1 && p.groups)
      origin[r] = origin_of<kMathFloat32>(widen_zero_point(p, p.zero_points, panel * 16 + g + 8 * r));
  }

  float sums[kColumns][2] = {}, totals[kColumns][2] = {};
  Codes<kBits> codes{}, coming{};
  if (warp < p.chunks) codes.load(chunks + int64_t(warp) * kBits * 512, lane);
  stage_scales(p, space.scales, panel, warp, lane, raw);
  copy_async_commit();

  int buffer = 0;
  for (int chunk = warp; chunk < p.chunks; chunk += kNarrowWarps, buffer ^= 1) {
    const int next = chunk + kNarrowWarps;
    if (next < p.chunks) coming.load(chunks + int64_t(next) * kBits * 512, lane);
    stage_scales(p, space.scales, panel, next, lane, raw + (1 - buffer) * space.scales.raw_bytes);
    copy_async_commit();
    copy_async_wait<1>();
    __syncwarp();
    widen_scales(p, space.scales, chunk, lane, raw + buffer * space.scales.raw_bytes, wide);
    __syncwarp();
#pragma unroll
    for (int half = 0; half < kHalfBlocks; ++half) {
      const int slot = half * 16 >> p.slot_shift;
      const bool starts = (half & slot_mask) == 0, ends = (half & slot_mask) == slot_mask;
      if (p.zero_points && p.folds > 1 && starts) {
#pragma unroll
        for (int r = 0; r < 2; ++r) origin[r] = origin_of<kMathFloat32>(wide[(p.slots + slot) * 16 + g + 8 * r]);
      }
      float w[2][4];
      decode_float32<kBits>(p.decoder, table, codes, half, lane, origin, w);
#pragma unroll
      for (int c = 0; c < kColumns; ++c) {
        if (c >= p.m) continue;
        const float4 x = load_cached(reinterpret_cast<const float4*>(
            static_cast<const float*>(p.x) + c * p.k_padded + int64_t(chunk) * kChunk + half * 16 + 4 * t));
#pragma unroll
        for (int r = 0; r < 2; ++r)
          sums[c][r] += w[r][0] * x.x + w[r][1] * x.y + w[r][2] * x.z + w[r][3] * x.w;
      }
      if (p.folds > 1 && ends) {
#pragma unroll
        for (int c = 0; c < kColumns; ++c)
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            totals[c][r] += sums[c][r] * wide[slot * 16 + g + 8 * r];
            sums[c][r] = 0;
          }
      }
    }
    codes = coming;
    __syncwarp();  // all lanes have read `wide`
  }
  copy_async_wait<0>();

#pragma unroll
  for (int c = 0; c < kColumns; ++c)
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float sum = sums[c][r] + totals[c][r];
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      if (t == 0 && c < p.m) all_sums[warp * space.warp_sums + c * kColumnStride + g + 8 * r] = sum;
    }
  __syncthreads();
  const int64_t output = panel * 16 + threadIdx.x % 16, row = threadIdx.x / 16;
  if (row >= p.m || output >= p.n) return;
  float sum = 0;
  for (int w = 0; w < kNarrowWarps; ++w) sum += all_sums[w * space.warp_sums + row * kColumnStride + threadIdx.x % 16];
  finish_whole(p, row, output, sum, output_scale);
}

template <int kBits, int kColumns>
cudaError_t start(const LinearParams& p, cudaStream_t stream) {
  const NarrowSpace space(p, false, kBits, 0);
  return launch(linear_lanes<kBits, kColumns>, dim3(unsigned(ceil_div(p.n, 16))), kNarrowWarps * 32, space.bytes, stream, p);
}

template <int kBits>
cudaError_t start(const LinearParams& p, cudaStream_t stream) {
  if (p.m <= 1) return start<kBits, 1>(p, stream);
  return start<kBits, kMaxColumns>(p, stream);
}

}  // namespace

cudaError_t linear_lanes_float32(const LinearParams& p, int bits, cudaStream_t stream) {
  return for_bits(bits, [&](auto b) { return start<b>(p, stream); });
}

}  // namespace minifloat::cuda
