// x to digits: one pass for the scale, one for the rounding, both in one kernel unless a scale covers the whole tensor.
#include "activations.h"

#include "launch.cuh"
#include "bits_space.h"
#include "rounding.cuh"

namespace minifloat::cuda {
namespace {

constexpr int kGroupThreads = 256, kRowThreads = 1024, kWarps = kRowThreads / 32;

MF_DEVICE Extremes reduce_warp(Extremes e) {
#pragma unroll
  for (int mask = 16; mask; mask >>= 1) {
    Extremes other;
    other.positive = __shfl_xor_sync(0xffffffffu, e.positive, mask);
    other.negative = __shfl_xor_sync(0xffffffffu, e.negative, mask);
    e.take(other);
  }
  return e;
}
MF_DEVICE int32_t reduce_warp(int32_t sum) {
#pragma unroll
  for (int mask = 16; mask; mask >>= 1) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
  return sum;
}

struct Shared {
  float thresholds[256];
  int16_t grid[256];
  Extremes extremes[kWarps];
  int32_t sums[kWarps];
};

__global__ void __launch_bounds__(kRowThreads) tensor_extremes(const __grid_constant__ QuantizeParams p) {
  Extremes e;
  const int64_t count = p.m * p.k;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += int64_t(gridDim.x) * blockDim.x)
    e.take(load_element(p.x, i, p.x_type));
  e = reduce_warp(e);
  if (threadIdx.x % 32 == 0) {
    atomicMax(p.extremes, e.positive);
    atomicMax(p.extremes + 1, e.negative);
  }
}

// The planes of 128 k's from `at` on, of which each lane holds those of its four k's; all lanes of the warp call it.
MF_DEVICE void store_bits(const QuantizeParams& p, int64_t row, int64_t at, const uint32_t (&bits)[kMostBitPlanes]) {
#pragma unroll
  for (int plane = 0; plane < kMostBitPlanes; ++plane) {
    if (plane >= p.planes) break;
    uint32_t word = bits[plane];
#pragma unroll
    for (int mask = 4; mask < 32; mask *= 2) word |= __shfl_xor_sync(0xffffffffu, word, mask);
    const int64_t in_row = (at / kChunk * p.planes + plane) * 8 + threadIdx.x % 4 * 2 + at % kChunk / 128;
    if (threadIdx.x % 32 < 4) p.bits[row * (p.k_padded / 32) * p.planes + in_row] = word;
  }
}

// Digits of slots first, first + step, ... below end, of one row; returns this lane's share of their sum.
template <bool kPlanes>
MF_DEVICE int32_t round_slots(const QuantizeParams& p, const Shared& tables, int64_t row, int first, int step, int end,
                              float divisor, float zero_point) {
  const int lane = threadIdx.x % 32;
  int32_t sum = 0;
  for (int slot = first; slot < end; slot += step) {
    const int fold = slot / p.slots_per_fold, offset = slot % p.slots_per_fold * p.slot_k;
    for (int i = lane * 4; i < p.slot_k; i += 128) {
      uint32_t low = 0, high = 0;
      [[maybe_unused]] uint32_t bits[kMostBitPlanes] = {};
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        int digit = 0;
        const bool inside = fold < p.folds && offset + i + j < p.fold && divisor == divisor;
        if (inside) {
          const float x = load_element(p.x, row * p.k + int64_t(fold) * p.fold + offset + i + j, p.x_type);
          digit = round_to_grid(p.rounding, tables.thresholds, tables.grid, x, divisor, zero_point);
        }
        sum += digit;
        if constexpr (kPlanes) {
          const uint32_t above = inside ? uint32_t(digit - p.lowest) * uint32_t(p.reciprocal) >> 16 : 0;
          const int bit = 8 * byte_of_k(j) + (lane / 16) * 4 + half_block_bit(p.weight_bits, lane / 4 % 4);
          bits[0] |= (above & 1) << bit, bits[1] |= (above >> 1) << bit;
        }
        const int low_digit = int8_t(digit);
        low |= uint32_t(digit & 0xff) << (8 * byte_of_k(j));
        high |= uint32_t(((digit - low_digit) >> 8) & 0xff) << (8 * byte_of_k(j));
      }
      if constexpr (kPlanes) {
        store_bits(p, row, int64_t(slot) * p.slot_k + i, bits);
        continue;
      }
      const int64_t at = row * p.k_padded + int64_t(slot) * p.slot_k + i;
      *reinterpret_cast<uint32_t*>(p.low + at) = low;
      if (p.digits_per_value == 2) *reinterpret_cast<uint32_t*>(p.high + at) = high;
    }
  }
  return sum;
}

// One row a block, or part of one: blockIdx.y shares out its groups.
// kPlanes: to planes of bits in place of digits.
template <bool kPlanes>
__global__ void __launch_bounds__(kRowThreads) quantize_rows(const __grid_constant__ QuantizeParams p) {
  Shared& shared = *reinterpret_cast<Shared*>(shared_memory());
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, warps = blockDim.x / 32;
  const int64_t row = blockIdx.x;
  for (int i = threadIdx.x; i < 256; i += blockDim.x) {
    shared.thresholds[i] = p.rounding.thresholds[i];
    shared.grid[i] = p.rounding.grid[i];
  }
  Extremes whole;
  if (p.extremes) whole.positive = p.extremes[0], whole.negative = p.extremes[1];
  const float tensor_scale = p.tensor_scale ? second_level_scale(p.rounding, whole) : 1.0f;
  if (p.tensor_scale && row == 0 && blockIdx.y == 0 && threadIdx.x == 0) *p.tensor_scale = tensor_scale;

  if (blockIdx.y == 0 && warp == warps - 1)  // what lies past the last fold
    round_slots<kPlanes>(p, shared, row, p.folds * p.slots_per_fold, 1, int(p.k_padded / p.slot_k), 1.0f, 0.0f);

  if (p.grouped) {
    __syncthreads();
    const int folds_per_group = p.fold ? int(p.group_k / p.fold) : 0;
    for (int group = blockIdx.y * warps + warp; group < p.groups; group += gridDim.y * warps) {
      Extremes e;
      for (int64_t i = lane; i < p.group_k; i += 32) e.take(load_element(p.x, row * p.k + group * p.group_k + i, p.x_type));
      const Step step = step_of(p.rounding, reduce_warp(e), tensor_scale);
      if (lane == 0) p.scales[group * p.x_rows + row] = step.scale;
      for (int f = group * folds_per_group; f < (group + 1) * folds_per_group; ++f) {
        const int32_t sum = reduce_warp(round_slots<kPlanes>(p, shared, row, f * p.slots_per_fold, 1, (f + 1) * p.slots_per_fold,
                                                    mul(step.scale, tensor_scale), step.zero_point));
        if (lane == 0) p.sums[f * p.x_rows + row] = sum;
      }
    }
    return;
  }

  if (!p.per_tensor) {
    Extremes e;
    for (int64_t i = threadIdx.x; i < p.k; i += blockDim.x) e.take(load_element(p.x, row * p.k + i, p.x_type));
    e = reduce_warp(e);
    if (lane == 0) shared.extremes[warp] = e;
    __syncthreads();
    whole = Extremes();
    for (int w = 0; w < warps; ++w) whole.take(shared.extremes[w]);
  } else {
    __syncthreads();
  }
  const Step step = step_of(p.rounding, whole, tensor_scale);
  const float divisor = mul(step.scale, tensor_scale);
  if (threadIdx.x == 0) p.scales[row] = step.scale;
  if (p.folds != 1) {
    for (int f = warp; f < p.folds; f += warps) {
      const int32_t sum = reduce_warp(round_slots<kPlanes>(p, shared, row, f * p.slots_per_fold, 1, (f + 1) * p.slots_per_fold, divisor,
                                                  step.zero_point));
      if (lane == 0) p.sums[f * p.x_rows + row] = sum;
    }
    return;
  }
  const int32_t sum = reduce_warp(round_slots<kPlanes>(p, shared, row, warp, warps, p.slots_per_fold, divisor, step.zero_point));
  if (lane == 0) shared.sums[warp] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    int32_t total = 0;
    for (int w = 0; w < warps; ++w) total += shared.sums[w];
    p.sums[row] = total;
  }
}

__global__ void __launch_bounds__(256) spread_rows(const __grid_constant__ SpreadParams p) {
  const Layout& l = p.layout;
  const int64_t row = blockIdx.x;
  for (int64_t i = int64_t(blockIdx.y) * blockDim.x + threadIdx.x; i < l.k_padded; i += int64_t(gridDim.y) * blockDim.x) {
    const int64_t fold = i / l.fold_padded, offset = i % l.fold_padded;
    const bool inside = fold < l.folds && offset < l.fold;
    store_element(p.out, row * l.k_padded + i, p.out_type,
                  inside ? load_element(p.x, row * p.k + fold * l.fold + offset, p.x_type) : 0.0f);
  }
}

// As spread_rows, 16 k's a thread, their pairs in the order in which a lane of linear_warpgroup holds the weights': its pairs
// 2 t and 2 t + 1 of a half block stand where wgmma expects pairs t and t + 4.
__global__ void __launch_bounds__(256) spread_pairs(const __grid_constant__ SpreadParams p) {
  const Layout& l = p.layout;
  const int64_t row = blockIdx.x;
  const bool aligned = p.k % 8 == 0 && l.fold % 8 == 0;  // then every 16 k's begin at a multiple of 16 bytes
  for (int64_t run = int64_t(blockIdx.y) * blockDim.x + threadIdx.x; run < l.k_padded / 16; run += int64_t(gridDim.y) * blockDim.x) {
    const int64_t fold = run * 16 / l.fold_padded, offset = run * 16 % l.fold_padded;
    const int64_t inside = fold < l.folds ? l.fold - offset : 0;
    const uint16_t* const from = static_cast<const uint16_t*>(p.x) + row * p.k + fold * l.fold + offset;
    uint32_t pairs[8] = {};
    if (aligned && inside >= 16) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const uint4 v = load_streaming(from + 8 * i);
        pairs[4 * i] = v.x, pairs[4 * i + 1] = v.y, pairs[4 * i + 2] = v.z, pairs[4 * i + 3] = v.w;
      }
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if (i < inside) pairs[i / 2] |= uint32_t(from[i]) << (i % 2 * 16);
    }
    uint4* const to = reinterpret_cast<uint4*>(static_cast<uint16_t*>(p.out) + row * l.k_padded + run * 16);
    to[0] = {pairs[0], pairs[2], pairs[4], pairs[6]};
    to[1] = {pairs[1], pairs[3], pairs[5], pairs[7]};
  }
}

// The same of 8-bit floats, 16 k's a thread.
__global__ void __launch_bounds__(256) spread_bytes(const __grid_constant__ SpreadParams p) {
  const Layout& l = p.layout;
  const int64_t row = blockIdx.x;
  const bool aligned = p.k % 16 == 0 && l.fold % 16 == 0;
  for (int64_t run = int64_t(blockIdx.y) * blockDim.x + threadIdx.x; run < l.k_padded / 16; run += int64_t(gridDim.y) * blockDim.x) {
    const int64_t fold = run * 16 / l.fold_padded, offset = run * 16 % l.fold_padded;
    const int64_t inside = fold < l.folds ? l.fold - offset : 0;
    const uint8_t* const from = static_cast<const uint8_t*>(p.x) + row * p.k + fold * l.fold + offset;
    uint32_t words[4] = {};
    if (aligned && inside >= 16) {
      const uint4 v = load_streaming(from);
      words[0] = v.x, words[1] = v.y, words[2] = v.z, words[3] = v.w;
    } else {
#pragma unroll
      for (int i = 0; i < 16; ++i)
        if (i < inside) words[i / 4] |= uint32_t(from[i]) << (i % 4 * 8);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) words[i] = permute_bytes(words[i], 0, 0x3120);
    *reinterpret_cast<uint4*>(static_cast<uint8_t*>(p.out) + row * l.k_padded + run * 16) = {words[0], words[1], words[2], words[3]};
  }
}

}  // namespace

cudaError_t quantize_activations(const QuantizeParams& p, cudaStream_t stream) {
  if (p.extremes) {
    cudaError_t error = cudaMemsetAsync(p.extremes, 0, 2 * sizeof(uint32_t), stream);
    if (error != cudaSuccess) return error;
    const int64_t blocks = ceil_div(p.m * p.k, 4 * kRowThreads);
    error = launch(tensor_extremes, dim3(unsigned(blocks < 1 ? 1 : blocks > 512 ? 512 : blocks)), kRowThreads, 0, stream, p);
    if (error != cudaSuccess) return error;
  }
  const int threads = p.grouped ? kGroupThreads : kRowThreads;
  const int64_t parts = p.grouped ? ceil_div(p.groups, kGroupThreads / 32) : 1;
  return launch(p.planes ? quantize_rows<true> : quantize_rows<false>,
                dim3(unsigned(p.m), unsigned(parts < 1 ? 1 : parts > 64 ? 64 : parts)), threads, sizeof(Shared), stream, p);
}

cudaError_t spread_activations(const SpreadParams& p, cudaStream_t stream) {
  if (p.operand_order) {
    const int64_t parts = ceil_div(p.layout.k_padded, 256 * 16);
    return launch(p.x_type == kElementFloat8 ? spread_bytes : spread_pairs, dim3(unsigned(p.m), unsigned(parts > 64 ? 64 : parts)), 256, 0, stream, p);
  }
  const int64_t parts = ceil_div(p.layout.k_padded, 1024);
  return launch(spread_rows, dim3(unsigned(p.m), unsigned(parts > 64 ? 64 : parts)), 256, 0, stream, p);
}

}  // namespace minifloat::cuda
