// Many rows of x where the integers of both sides need one or two bits: products of single bits, each instruction the
// conjunction of 256 k's and the count of its ones (Feng et al., APNN-TC, 2021).
//
// With integers w = c + q u of the weights and a = l + s v of x, digits u and v from 0 to 3,
//   sum a w = q s (sum u0 v0 + 2 (sum u1 v0 + sum u0 v1) + 4 sum u1 v1) + l q sum u + c sum a,
// u0, u1 being the planes of u. The first sums are products of x; sum u is one of a row of ones, made along with them where l
// is not 0; the last is the correction that every exact kernel makes. Blocks and their order are those of wide.cuh.
#include "bits_space.h"
#include "linear.h"
#include "panels.cuh"
#include "split.cuh"

namespace minifloat::cuda {
namespace {

// The A operand of a chunk, planes of digits: [plane][2 * half chunk + output half].
template <int kBits>
struct BitWeights {
  uint32_t planes[kBits][4];

  MF_DEVICE void decode(const BitsParams& p, const Codes<kBits>& codes) {
    uint32_t bits[kBits][4];  // nibbles: low ones belong to output g, high ones to g + 8; four half blocks a nibble
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if constexpr (kBits == 1) {
        bits[0][i] = codes.words[i];  // one bit is its own digit
      } else {
        const uint32_t even = codes.words[2 * i], odd = codes.words[2 * i + 1];
        const uint32_t code0 = and_or(odd << 1, 0xaaaaaaaau, even & 0x55555555u);
        const uint32_t code1 = and_or(even >> 1, 0x55555555u, odd & 0xaaaaaaaau);
#pragma unroll
        for (int b = 0; b < kBits; ++b)
          bits[b][i] = p.terms[b][0] ^ (code0 & p.terms[b][1]) ^ (code1 & p.terms[b][2]) ^ (code0 & code1 & p.terms[b][3]);
      }
    }
#pragma unroll
    for (int b = 0; b < kBits; ++b) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        const uint32_t first = bits[b][2 * r], second = bits[b][2 * r + 1];
        planes[b][2 * r] = and_or(second << 4, ~kNibbles, first & kNibbles);
        planes[b][2 * r + 1] = and_or(first >> 4, kNibbles, second & ~kNibbles);
      }
    }
  }
};

// Sums of products of planes whose numbers add up to the same: worth 1, 2 and 4.
template <int kSets>
struct BitTile {
  int32_t sums[kSets][4];

  MF_DEVICE void clear() {
#pragma unroll
    for (int s = 0; s < kSets; ++s)
#pragma unroll
      for (int j = 0; j < 4; ++j) sums[s][j] = 0;
  }
  // half: 0 or 1, or 2 for both halves of the chunk.
  template <int kHalf, int kBits>
  MF_DEVICE void add(const BitWeights<kBits>& w, int plane, const uint2& x, int set) {
    const auto& a = w.planes[plane];
    if constexpr (kHalf == 2) {
      mma_b1_k256(sums[set], a[0], a[1], a[2], a[3], x.x, x.y);
    } else {
      mma_b1_k128(sums[set], a[2 * kHalf], a[2 * kHalf + 1], kHalf ? x.y : x.x);
    }
  }
  MF_DEVICE void take(uint32_t (&out)[4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      out[j] = sums[kSets - 1][j];
#pragma unroll
      for (int s = kSets - 2; s >= 0; --s) out[j] = 2 * out[j] + sums[s][j];
    }
    clear();
  }
};

template <int kXPlanes>
MF_DEVICE void stage_bits(const BitsParams& p, int64_t first_row, int chunk, unsigned char* to) {
  constexpr int kPieces = kBitRowBytes / 16;
#pragma unroll
  for (int i = threadIdx.x; i < kXPlanes * kWideRows * kPieces; i += kWideWarps * 32) {
    const int row = i / (kXPlanes * kPieces), rest = i % (kXPlanes * kPieces), plane = rest / kPieces, piece = rest % kPieces;
    const bool valid = first_row + row < p.m;
    const int64_t at = (((valid ? first_row + row : 0) * p.chunks + chunk) * kXPlanes + plane) * kBitRowBytes + piece * 16;
    copy_async(to + (plane * kWideRows + row) * kBitRowBytes + piece * 16, static_cast<const uint8_t*>(p.x) + at, valid);
  }
}

// kOrdered: several folds, of 128 k's or of whole chunks, whose sums are added in the order of K.
template <int kBits, int kXPlanes, bool kOrdered>
__global__ void __launch_bounds__(kWideWarps * 32, 2) linear_bits(const __grid_constant__ BitsParams p) {
  constexpr int kSets = kBits + kXPlanes - 1, kXBytes = kXPlanes * kWideRows * kBitRowBytes;
  const BitsSpace space(p, kXPlanes);
  unsigned char* const shared = shared_memory();
  const PanelBlock block(p, space, shared);

  BitTile<kSets> tiles[kWideTiles];
  BitTile<kBits> ones;  // the weights' digits themselves: every column the same
  float totals[kWideTiles][4] = {};
#pragma unroll
  for (int i = 0; i < kWideTiles; ++i) tiles[i].clear();
  ones.clear();
  FoldCount<kMathInt8> folds(p);

  // The sums of a fold: products, and what x's lowest integer adds.
  const auto take = [&](int i, const uint32_t (&digits)[4], int padding, uint32_t (&out)[4]) {
    tiles[i].take(out);
#pragma unroll
    for (int j = 0; j < 4; ++j)
      out[j] = uint32_t(p.product) * out[j] + uint32_t(p.per_digit) * (digits[j / 2 * 2] - uint32_t(padding));
  };

  const auto stage = [&](int chunk, unsigned char* to) { stage_bits<kXPlanes>(p, block.first_row, chunk, to); };
  for_chunks<kBits, kXBytes>(p, space.scales, block, stage, [&](const Codes<kBits>& codes, const unsigned char* staged) {
    const uint2* const x = reinterpret_cast<const uint2*>(staged) + block.g * 4 + block.t;
    BitWeights<kBits> w;
    w.decode(p, codes);

    const auto multiply = [&](auto half) {
      constexpr int kHalf = decltype(half)::value;
#pragma unroll
      for (int i = 0; i < kWideTiles; ++i) {
#pragma unroll
        for (int v = 0; v < kXPlanes; ++v) {
          const uint2 bits = x[(v * kWideRows + 8 * i) * 4];
#pragma unroll
          for (int u = 0; u < kBits; ++u) tiles[i].template add<kHalf>(w, u, bits, u + v);
        }
      }
      if (p.per_digit) {
#pragma unroll
        for (int u = 0; u < kBits; ++u) ones.template add<kHalf>(w, u, uint2{~0u, ~0u}, u);
      }
    };
    const auto end_slot = [&](int slot) {
      folds.end_slot(p, block, slot, [&](const FoldEnd<kMathInt8>& end) {
        uint32_t digits[4];
        ones.take(digits);
#pragma unroll
        for (int i = 0; i < kWideTiles; ++i) {
          uint32_t taken[4];
          take(i, digits, p.padding, taken);
          end.template add_tile<false>(p, i, taken, totals[i]);
        }
      });
    };
    if (!kOrdered || p.slot_k == kChunk) {
      multiply(std::integral_constant<int, 2>());
      if constexpr (kOrdered) end_slot(0);
    } else {
      multiply(std::integral_constant<int, 0>());
      end_slot(0);
      multiply(std::integral_constant<int, 1>());
      end_slot(1);
    }
  });
  if (!block.stores) return;

  uint32_t digits[4];
  ones.take(digits);
#pragma unroll
  for (int i = 0; i < kWideTiles; ++i) {
    uint32_t taken[4];
    take(i, digits, block.last_chunk == p.chunks ? p.padding : 0, taken);  // padded places are the last
    store_tile(p, block, i, kOrdered, taken, totals[i]);
  }
}

template <int kBits, int kXPlanes>
cudaError_t start(const BitsParams& p, cudaStream_t stream) {
  const BitsSpace space(p, kXPlanes);
  const dim3 grid(unsigned(ceil_div(p.n, 16 * kWideWarps)), unsigned(ceil_div(p.m, kWideRows)), unsigned(p.splits));
  if (p.ordered) return launch(linear_bits<kBits, kXPlanes, true>, grid, kWideWarps * 32, space.bytes, stream, p);
  const cudaError_t error = launch(linear_bits<kBits, kXPlanes, false>, grid, kWideWarps * 32, space.bytes, stream, p);
  if (error != cudaSuccess || p.splits == 1) return error;
  return launch_split_sums<uint32_t>(p, stream);
}

}  // namespace

cudaError_t linear_bits_planes(const BitsParams& p, int bits, int x_planes, cudaStream_t stream) {
  if (bits == 1) return x_planes == 1 ? start<1, 1>(p, stream) : start<1, 2>(p, stream);
  return x_planes == 1 ? start<2, 1>(p, stream) : start<2, 2>(p, stream);
}

}  // namespace minifloat::cuda
