#include "layout.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "significands.h"

namespace minifloat {
namespace {

constexpr int kPlanes[] = {8, 4, 2, 1};

bool has_plane(int bits, int plane) { return plane == 8 ? bits == 8 : bits < 8 && (bits & plane); }

// Calls visit(byte offset in the block, bit in the byte, bit in the code, plane width) for each plane of (output, k).
template <class Visit>
void for_planes(int bits, int output, int k, Visit visit) {
  int64_t base = 0;
  int code_bit = 0;
  const int quad = k / 4;
  for (int plane : kPlanes) {
    if (!has_plane(bits, plane)) continue;
    const int quads_per_row = 8 / plane;
    const int64_t row = quad / quads_per_row;
    visit(base + row * kRowBytes + output * 4 + k % 4, (quad % quads_per_row) * plane, code_bit, plane);
    base += plane * kRowBytes;
    code_bit += plane;
  }
}

// The window below the first one that a code belongs to, 0 if there is none.
int lower_window(const Plan& plan, int code) {
  const int magnitude = code & ((1 << (plan.weight.bits - 1)) - 1);
  int window = 0;
  while (magnitude > 0 && magnitude < smallest_code(plan.weight, window)) ++window;
  return window;
}

// The scales (item bytes each) of one output: canonical (n, groups) or a single one for the tensor.
int64_t canonical_index(const Plan& plan, int64_t output, int64_t groups, int64_t group) {
  return plan.weight.granularity == kTensor ? 0 : output * groups + group;
}

}  // namespace

void unpack_row(const uint8_t* packed, int bits, int64_t k, uint8_t* codes) {
  for (int64_t i = 0; i < k; ++i) {
    const int64_t bit = i * bits;
    unsigned word = packed[bit / 8];
    if (bit % 8 + bits > 8) word |= unsigned(packed[bit / 8 + 1]) << 8;
    codes[i] = (word >> (bit % 8)) & ((1u << bits) - 1);
  }
}

void pack_row(const uint8_t* codes, int bits, int64_t k, uint8_t* packed, int64_t bytes) {
  std::memset(packed, 0, bytes);
  for (int64_t i = 0; i < k; ++i) {
    const int64_t bit = i * bits;
    const unsigned word = unsigned(codes[i]) << (bit % 8);
    packed[bit / 8] |= word;
    if (bit % 8 + bits > 8) packed[bit / 8 + 1] |= word >> 8;
  }
}

Layout layout_of(const Plan& plan) {
  Layout l;
  l.panels = ceil_div(plan.n, kPanel);
  l.blocks = plan.k_padded / kBlock;
  l.groups = weight_groups(plan);
  l.panel_bytes = l.blocks * plan.weight.bits * kRowBytes;
  l.scales_at = l.panels * l.panel_bytes;
  l.zero_points_at = l.scales_at + l.panels * l.groups * kPanel * scale_bytes(plan.weight);
  l.marks_at = l.zero_points_at + (plan.weight.has_zero_point ? l.panels * l.groups * kPanel : 0);
  l.panel_marks = std::max(significand_windows(plan) - 1, 0) * l.blocks;
  l.bytes = l.marks_at + (l.panel_marks ? l.panels * l.panel_marks + 8 : 0);
  return l;
}

void pack_panels(const Plan& plan, const Canonical& from, uint8_t* layout, int64_t begin, int64_t end) {
  const Layout l = layout_of(plan);
  if (l.panel_marks && end == l.panels) std::memset(layout + l.bytes - 8, 0, 8);
  const int bits = plan.weight.bits, item = scale_bytes(plan.weight);
  std::vector<uint8_t> codes(plan.k);
  uint8_t window_of[256] = {};
  for (int code = 0; l.panel_marks && code < (1 << bits); ++code) window_of[code] = lower_window(plan, code);
  for (int64_t p = begin; p < end; ++p) {
    uint8_t* marks = layout + l.marks_at + p * l.panel_marks;
    std::memset(marks, 0, l.panel_marks);
    uint8_t* panel = layout + p * l.panel_bytes;
    std::memset(panel, 0, l.panel_bytes);
    uint8_t* scales = layout + l.scales_at + p * l.groups * kPanel * item;
    std::memset(scales, 0, l.groups * kPanel * item);
    uint8_t* zero_points = layout + l.zero_points_at + p * l.groups * kPanel;
    if (from.zero_points) std::memset(zero_points, 0, l.groups * kPanel);
    for (int o = 0; o < std::min<int64_t>(kPanel, plan.n - p * kPanel); ++o) {
      const int64_t output = p * kPanel + o;
      unpack_row(from.packed + output * from.packed_row_bytes, bits, plan.k, codes.data());
      for (int64_t k = 0; k < plan.k; ++k) {
        const int64_t at = padded_position(plan, k);
        const unsigned stored = codes[k] ^ plan.weight.code_flip;
        uint8_t* block = panel + at / kBlock * bits * kRowBytes;
        for_planes(bits, o, at % kBlock, [&](int64_t byte, int bit, int code_bit, int width) {
          block[byte] |= ((stored >> code_bit) & ((1u << width) - 1)) << bit;
        });
        if (const int window = window_of[stored])
          marks[(window - 1) * l.blocks + at / kBlock] |= 1 << (at % kBlock / 4);
      }
      for (int64_t g = 0; g < l.groups; ++g) {
        const int64_t index = canonical_index(plan, output, l.groups, g);
        std::memcpy(scales + (g * kPanel + o) * item, from.scales + index * item, item);
        if (from.zero_points) zero_points[g * kPanel + o] = from.zero_points[index];
      }
    }
  }
}

void panel_codes(const Plan& plan, const uint8_t* layout, int64_t panel, uint8_t* codes) {
  const Layout l = layout_of(plan);
  const int bits = plan.weight.bits;
  for (int o = 0; o < std::min<int64_t>(kPanel, plan.n - panel * kPanel); ++o) {
    for (int64_t k = 0; k < plan.k; ++k) {
      const int64_t at = padded_position(plan, k);
      const uint8_t* block = layout + panel * l.panel_bytes + at / kBlock * bits * kRowBytes;
      unsigned stored = 0;
      for_planes(bits, o, at % kBlock, [&](int64_t byte, int bit, int code_bit, int width) {
        stored |= ((unsigned(block[byte]) >> bit) & ((1u << width) - 1)) << code_bit;
      });
      codes[o * plan.k + k] = stored ^ plan.weight.code_flip;
    }
  }
}

void restore_panels(const Plan& plan, const uint8_t* layout, const Canonical& to, int64_t begin, int64_t end) {
  const Layout l = layout_of(plan);
  const int bits = plan.weight.bits, item = scale_bytes(plan.weight);
  std::vector<uint8_t> codes(kPanel * plan.k);
  for (int64_t p = begin; p < end; ++p) {
    const uint8_t* scales = layout + l.scales_at + p * l.groups * kPanel * item;
    const uint8_t* zero_points = layout + l.zero_points_at + p * l.groups * kPanel;
    panel_codes(plan, layout, p, codes.data());
    for (int o = 0; o < std::min<int64_t>(kPanel, plan.n - p * kPanel); ++o) {
      const int64_t output = p * kPanel + o;
      pack_row(codes.data() + o * plan.k, bits, plan.k, to.packed + output * to.packed_row_bytes, to.packed_row_bytes);
      if (plan.weight.granularity == kTensor && output > 0) continue;  // one scale for all, written by output 0
      for (int64_t g = 0; g < l.groups; ++g) {
        const int64_t index = canonical_index(plan, output, l.groups, g);
        std::memcpy(to.scales + index * item, scales + (g * kPanel + o) * item, item);
        if (to.zero_points) to.zero_points[index] = zero_points[g * kPanel + o];
      }
    }
  }
}

}  // namespace minifloat
