#include "layout.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "residues.h"
#include "significands.h"

namespace minifloat {
namespace {

// Whether the pieces of a block's eight quads take every bit of its rows once, and hold every bit of the codes once.
constexpr bool fills_block(int bits, bool in_planes) {
  bool taken[8][8] = {};
  for (int quad = 0; quad < 8; ++quad) {
    bool held[8] = {};
    const Pieces pieces = pieces_of(bits, in_planes, quad);
    for (int i = 0; i < pieces.count; ++i) {
      for (int b = 0; b < pieces.at[i].width; ++b) {
        bool &here = taken[pieces.at[i].row][pieces.at[i].bit + b], &of_code = held[pieces.at[i].code_bit + b];
        if (here || of_code) return false;
        here = of_code = true;
      }
    }
    for (int b = 0; b < bits; ++b)
      if (!held[b]) return false;
  }
  for (int row = 0; row < bits; ++row)
    for (bool bit : taken[row])
      if (!bit) return false;
  return true;
}
static_assert(fills_block(1, false) && fills_block(2, false) && fills_block(3, false) && fills_block(4, false));
static_assert(fills_block(5, false) && fills_block(6, false) && fills_block(7, false) && fills_block(8, false));
static_assert(fills_block(5, true) && fills_block(6, true) && fills_block(7, true));

// Calls visit(byte offset in the block, bit in the byte, bit in the code, bits) for each piece of the code of (output, k).
template <class Visit>
void for_pieces(const Layout& l, int bits, int output, int k, Visit visit) {
  const Pieces pieces = pieces_of(bits, l.in_planes, k / 4);
  for (int i = 0; i < pieces.count; ++i) {
    const Piece& p = pieces.at[i];
    visit(p.row * kRowBytes + output * 4 + k % 4, p.bit, p.code_bit, p.width);
  }
}

// Writes the marks of a panel, an output after the other.
class Marker {
 public:
  explicit Marker(const Plan& plan)
      : plan_(plan), guards_sums_(guards_sums(plan)), residue_bits_(residue_bits(plan)), limits_(byte_limits(plan)) {
    const Operand& o = plan.weight;
    for (int stored = 0; stored < (1 << o.bits); ++stored) {
      digit_[stored] = byte_digit(o.grid[stored ^ o.code_flip], residue_bits_).digit;
      size_[stored] = std::abs(o.grid[stored ^ o.code_flip]);
      const int magnitude = stored & ((1 << (o.bits - 1)) - 1);
      if (significand_windows(plan) > 1)
        while (magnitude > 0 && magnitude < smallest_code(o, window_[stored])) ++window_[stored];
    }
  }
  void add_output(const std::vector<uint8_t>& stored, uint8_t* marks) {
    if (clamps_activations(plan_) || residue_bits_) mark_octets(stored, marks);
    else if (guards_sums_) mark_sums(stored, marks);
    else mark_windows(stored, marks);
  }

 private:
  // An int16 sum adds two k's of each of kGuardedDepth quads.
  void mark_sums(const std::vector<uint8_t>& stored, uint8_t* marks) {
    constexpr int kSpan = 4 * kGuardedDepth;
    sums_.assign(plan_.k_padded / kSpan * 2, 0);
    for (int64_t k = 0; k < plan_.k; ++k) {
      const int64_t at = padded_position(plan_, k);
      sums_[at / kSpan * 2 + at % 4 / 2] += size_[stored[k]];
    }
    for (size_t i = 0; i < sums_.size(); ++i)
      if (sums_[i] * plan_.largest_activation > 32767) marks[i / 2 * kSpan / kBlock] = 1;
  }
  // Octets where a pair of products with activations plus the clamp, which are 0 .. 2 clamp, could be too large, and both of a
  // span where a norm is.
  void mark_octets(const std::vector<uint8_t>& stored, uint8_t* marks) {
    digits_.assign(plan_.k_padded, digit_[0]);
    for (int64_t k = 0; k < plan_.k; ++k) digits_[padded_position(plan_, k)] = digit_[stored[k]];
    for (int64_t span = 0; span < plan_.k_padded; span += kSpan) {
      int64_t squares[2] = {}, most[2] = {};  // of each half of the quads, of each octet
      for (int64_t i = 0; i < kSpan; i += 2) {
        const int64_t a = digits_[span + i], b = digits_[span + i + 1];
        const int64_t up = std::max<int64_t>(a, 0) + std::max<int64_t>(b, 0);
        squares[i % 4 / 2] += a * a + b * b;
        most[i / kOctet] = std::max({most[i / kOctet], up, up - a - b});
      }
      const bool large = std::max(squares[0], squares[1]) > limits_.weight_norm * limits_.weight_norm;
      for (int i = 0; i < 2; ++i)
        if (large || most[i] * 2 * limits_.clamp > 32767) marks[span / kBlock] |= 1 << (span % kBlock / kOctet + i);
    }
  }
  void mark_windows(const std::vector<uint8_t>& stored, uint8_t* marks) const {
    for (int64_t k = 0; k < plan_.k; ++k) {
      const int64_t at = padded_position(plan_, k);
      if (const int window = window_[stored[k]])
        marks[(window - 1) * plan_.k_padded / kBlock + at / kBlock] |= 1 << (at % kBlock / 4);
    }
  }

  const Plan& plan_;
  bool guards_sums_;
  int residue_bits_;
  ByteLimits limits_;
  int64_t size_[256], digit_[256];
  int window_[256] = {};  // of exponents, by code
  std::vector<int64_t> sums_, digits_;
};

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
  l.in_planes = holds_planes(plan);
  l.panels = ceil_div(plan.n, kPanel);
  l.blocks = plan.k_padded / kBlock;
  l.groups = weight_groups(plan);
  l.panel_bytes = l.blocks * plan.weight.bits * kRowBytes;
  l.scales_at = l.panels * l.panel_bytes;
  l.zero_points_at = l.scales_at + l.panels * l.groups * kPanel * scale_bytes(plan.weight);
  l.marks_at = l.zero_points_at + (plan.weight.has_zero_point ? l.panels * l.groups * kPanel : 0);
  const bool marks_blocks = guards_sums(plan) || clamps_activations(plan) || residue_bits(plan);
  l.panel_marks = marks_blocks ? l.blocks : std::max(significand_windows(plan) - 1, 0) * l.blocks;
  l.bytes = l.marks_at + (l.panel_marks ? l.panels * l.panel_marks + 8 : 0);
  return l;
}

void pack_panels(const Plan& plan, const Canonical& from, uint8_t* layout, int64_t begin, int64_t end) {
  const Layout l = layout_of(plan);
  const int bits = plan.weight.bits, item = scale_bytes(plan.weight);
  std::vector<uint8_t> codes(plan.k);
  Marker marker(plan);
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
        const unsigned stored = codes[k] ^= plan.weight.code_flip;
        uint8_t* block = panel + at / kBlock * bits * kRowBytes;
        for_pieces(l, bits, o, at % kBlock, [&](int64_t byte, int bit, int code_bit, int width) {
          block[byte] |= ((stored >> code_bit) & ((1u << width) - 1)) << bit;
        });
      }
      if (l.panel_marks) marker.add_output(codes, marks);
      for (int64_t g = 0; g < l.groups; ++g) {
        const int64_t index = canonical_index(plan, output, l.groups, g);
        std::memcpy(scales + (g * kPanel + o) * item, from.scales + index * item, item);
        if (from.zero_points) zero_points[g * kPanel + o] = from.zero_points[index];
      }
    }
  }
}

void count_marks(const Plan& plan, uint8_t* layout) {
  const Layout l = layout_of(plan);
  if (!l.panel_marks) return;
  const uint8_t* marks = layout + l.marks_at;
  const int64_t all = l.panels * l.panel_marks, marked = all - std::count(marks, marks + all, 0);
  std::memcpy(layout + l.bytes - sizeof(marked), &marked, sizeof(marked));
}

double marked_share(const Plan& plan, const uint8_t* layout) {
  const Layout l = layout_of(plan);
  int64_t marked = 0;
  if (l.panel_marks) std::memcpy(&marked, layout + l.bytes - sizeof(marked), sizeof(marked));
  return double(marked) / double(std::max<int64_t>(l.panels * l.panel_marks, 1));
}

void panel_codes(const Plan& plan, const uint8_t* layout, int64_t panel, uint8_t* codes) {
  const Layout l = layout_of(plan);
  const int bits = plan.weight.bits;
  for (int o = 0; o < std::min<int64_t>(kPanel, plan.n - panel * kPanel); ++o) {
    for (int64_t k = 0; k < plan.k; ++k) {
      const int64_t at = padded_position(plan, k);
      const uint8_t* block = layout + panel * l.panel_bytes + at / kBlock * bits * kRowBytes;
      unsigned stored = 0;
      for_pieces(l, bits, o, at % kBlock, [&](int64_t byte, int bit, int code_bit, int width) {
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
