// What comes before and after a plain product: panels decoded as linear_wide decodes them, a chunk a warp, and the scales.
// Each lane stores four k's of two outputs at once, so that the four lanes of an output fill sectors of 32 bytes.
#include "product.h"

#include "decode.cuh"
#include "launch.cuh"
#include "narrow_space.h"
#include "scales.cuh"
#include "split.cuh"

namespace minifloat::cuda {
namespace {

template <int kMath, int kBits>
__global__ void __launch_bounds__(kNarrowWarps * 32) decode_panels(const __grid_constant__ ProductParams p) {
  uint32_t* const table = reinterpret_cast<uint32_t*>(shared_memory());
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const int64_t panel = blockIdx.x, chunk = int64_t(blockIdx.y) * kNarrowWarps + threadIdx.x / 32;
  if (p.decoder.kind == kDecodeTable) fill_table(table, p.decoder, 1 << kBits);
  __syncthreads();
  if (chunk >= p.chunks) return;
  Codes<kBits> codes;
  codes.load(p.codes + panel * p.panel_bytes + chunk * kBits * 512, lane);
  uint32_t origin[2];
#pragma unroll
  for (int r = 0; r < 2; ++r)
    origin[r] = origin_of<kMath>(p.zero_points ? widen_zero_point(p, p.zero_points, panel * 16 + g + 8 * r) : p.decoder.origin);
#pragma unroll
  for (int half = 0; half < kHalfBlocks; ++half) {
    uint32_t a[4];  // pairs (0, 1) of g and g + 8, pairs (2, 3) of them
    decode_floats<kMath, kBits>(p.decoder, table, codes, half, lane, origin, a);
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const int64_t output = panel * 16 + g + 8 * r;
      if (output < p.n)
        *reinterpret_cast<uint2*>(p.decoded + output * p.k_padded + chunk * kChunk + half * 16 + 4 * t) = {a[r], a[r + 2]};
    }
  }
}

template <int kMath>
cudaError_t start(const ProductParams& p, int bits, cudaStream_t stream) {
  return for_bits(bits, [&](auto b) {
    const dim3 grid(unsigned(ceil_div(p.n, 16)), unsigned(ceil_div(p.chunks, kNarrowWarps)));
    const size_t table_bytes = p.decoder.kind == kDecodeTable ? (size_t(1) << b) * 128 : 0;
    return launch(decode_panels<kMath, b>, grid, kNarrowWarps * 32, table_bytes, stream, p);
  });
}

}  // namespace

cudaError_t decode_float16(const ProductParams& p, int bits, cudaStream_t stream) {
  return start<kMathFloat16>(p, bits, stream);
}
cudaError_t decode_bfloat16(const ProductParams& p, int bits, cudaStream_t stream) {
  return start<kMathBFloat16>(p, bits, stream);
}
cudaError_t finish_float32(const LinearParams& p, cudaStream_t stream) { return launch_split_sums<float>(p, stream); }

}  // namespace minifloat::cuda
