// Done once per weight (and per backward pass): one thread a byte or an element, no tricks.
#include "storage.h"

#include "launch.cuh"
#include "scales.cuh"

namespace minifloat::cuda {
namespace {

constexpr int kThreads = 256;

MF_DEVICE int64_t thread_index() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }
MF_DEVICE int64_t thread_count() { return int64_t(gridDim.x) * blockDim.x; }
dim3 blocks_for(int64_t items) {
  const int64_t blocks = ceil_div(items, kThreads);
  return dim3(unsigned(blocks > 65535 ? 65535 : blocks));
}

MF_DEVICE uint32_t canonical_code(const StorageParams& p, int64_t row, int64_t k) {
  const int64_t bit = k * p.layout.bits;
  const uint8_t* at = p.packed + row * p.packed_row_bytes + bit / 8;
  uint32_t word = at[0];
  if (bit % 8 + p.layout.bits > 8) word |= uint32_t(at[1]) << 8;
  return word >> (bit % 8) & ((1u << p.layout.bits) - 1);
}

MF_DEVICE uint32_t stored_code(const Layout& l, const uint8_t* weight, int64_t output, int64_t k) {
  const int64_t at = l.position(k);
  const uint8_t* chunk = weight + output / kPanel * l.panel_bytes + at / kChunk * l.bits * 512;
  uint32_t code = 0;
  for (int width = 8, first = 0; width; width /= 2) {
    if (width == 8 ? l.bits != 8 : l.bits == 8 || !(l.bits & width)) continue;
    const Place place = place_in_chunk(l.bits, width, first, output % kPanel, at % kChunk);
    code |= (uint32_t(chunk[place.byte]) >> place.bit & ((1u << width) - 1)) << first;
    first += width;
  }
  return code;
}

// A byte of the layout holds bits of several (output, k): each thread gathers one byte, so that none is written twice.
// The k's that share a byte of a plane: half blocks `step` apart; the outputs: one, or g and g + 8.
MF_DEVICE uint8_t gather_byte(const StorageParams& p, int64_t panel, int64_t chunk, int byte) {
  const Layout& l = p.layout;
  const int load = byte / 512, lane = byte % 512 / 16, word_in_load = byte % 16 / 4, k_in_quad = byte_of_k(byte % 4);
  int width = 8, first = 0;
  if (l.bits < 8) {
    for (width = 4;; width /= 2) {  // the plane that this load belongs to
      if (!(l.bits & width)) continue;
      if (load < first + width) break;
      first += width;
    }
  }
  const int word = (load - first) * 4 + word_in_load;
  uint32_t out = 0;
  for (int bit = 0; bit < 8; bit += width) {
    const int upper = width == 8 ? word % 2 : bit / 4;
    const int half = width == 8 ? word / 2 : width == 4 ? word : width == 2 ? 2 * word + bit % 4 / 2 : 4 * word + bit % 4;
    const int64_t output = panel * kPanel + lane / 4 + 8 * upper;
    const int64_t position = chunk * kChunk + half * 16 + lane % 4 * 4 + k_in_quad;
    const int64_t fold = position / l.fold_padded, offset = position % l.fold_padded;
    if (output >= l.n || fold >= l.folds || offset >= l.fold) continue;
    const uint32_t code = canonical_code(p, output, fold * l.fold + offset) ^ p.code_flip;
    out |= (code >> first & ((1u << width) - 1)) << bit;
  }
  return uint8_t(out);
}

__global__ void __launch_bounds__(kThreads) pack_codes(const __grid_constant__ StorageParams p) {
  const Layout& l = p.layout;
  const int chunk_bytes = l.bits * 512;
  for (int64_t i = thread_index(); i < l.scales_at; i += thread_count()) {
    const int64_t chunk = i / chunk_bytes;
    p.weight[i] = gather_byte(p, chunk / l.chunks, chunk % l.chunks, int(i % chunk_bytes));
  }
}

// Scales and zero points: item i of the layout is (panel, group, output of the panel).
template <bool kPack>
__global__ void __launch_bounds__(kThreads) move_scales(const __grid_constant__ StorageParams p) {
  const Layout& l = p.layout;
  for (int64_t i = thread_index(); i < l.panels * l.groups * kPanel; i += thread_count()) {
    const int64_t group = i / kPanel % l.groups, output = i / kPanel / l.groups * kPanel + i % kPanel;
    const bool exists = output < l.n;
    if (!kPack && (!exists || (p.per_tensor && output > 0))) continue;
    const int64_t index = p.per_tensor ? 0 : output * l.groups + group;
    for (int b = 0; b < l.scale_bytes; ++b) {
      uint8_t* inside = p.weight + l.scales_at + i * l.scale_bytes + b;
      uint8_t* canonical = p.scales + index * l.scale_bytes + b;
      if (kPack) *inside = exists ? *canonical : 0; else *canonical = *inside;
    }
    if (!p.has_zero_points) continue;
    uint8_t* inside = p.weight + l.zero_points_at + i;
    if (kPack) *inside = exists ? p.zero_points[index] : 0; else p.zero_points[index] = *inside;
  }
}

__global__ void __launch_bounds__(kThreads) restore_codes(const __grid_constant__ StorageParams p) {
  const Layout& l = p.layout;
  for (int64_t i = thread_index(); i < l.n * p.packed_row_bytes; i += thread_count()) {
    const int64_t row = i / p.packed_row_bytes, first_bit = i % p.packed_row_bytes * 8;
    uint32_t out = 0;
    for (int64_t k = first_bit / l.bits; k < l.k && k * l.bits < first_bit + 8; ++k) {
      const uint32_t code = stored_code(l, p.weight, row, k) ^ p.code_flip;
      const int64_t shift = k * l.bits - first_bit;
      out |= shift >= 0 ? code << shift : code >> -shift;
    }
    p.packed[i] = uint8_t(out);
  }
}

__global__ void __launch_bounds__(kThreads) dequantize_codes(const __grid_constant__ DequantizeParams p) {
  const Layout& l = p.layout;
  for (int64_t i = thread_index(); i < l.n * l.k; i += thread_count()) {
    const int64_t row = i / l.k, k = i % l.k, group = k / (l.k / l.groups);
    const int64_t at = (row / kPanel * l.groups + group) * kPanel + row % kPanel;
    float value = p.values[stored_code(l, p.weight, row, k)];
    if (p.has_zero_points) value = sub(value, p.zero_values[p.weight[l.zero_points_at + at]]);
    p.out[i] = mul(mul(value, widen_scale(p.weight + l.scales_at, at, p.scale)), p.tensor_scale);
  }
}

}  // namespace

cudaError_t pack_weight(const StorageParams& p, cudaStream_t stream) {
  const cudaError_t error = launch(pack_codes, blocks_for(p.layout.scales_at), kThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  return launch(move_scales<true>, blocks_for(p.layout.panels * p.layout.groups * kPanel), kThreads, 0, stream, p);
}

cudaError_t restore_weight(const StorageParams& p, cudaStream_t stream) {
  const cudaError_t error = launch(restore_codes, blocks_for(p.layout.n * p.packed_row_bytes), kThreads, 0, stream, p);
  if (error != cudaSuccess) return error;
  return launch(move_scales<false>, blocks_for(p.layout.panels * p.layout.groups * kPanel), kThreads, 0, stream, p);
}

cudaError_t dequantize_weight(const DequantizeParams& p, cudaStream_t stream) {
  return launch(dequantize_codes, blocks_for(p.layout.n * p.layout.k), kThreads, 0, stream, p);
}

}  // namespace minifloat::cuda
