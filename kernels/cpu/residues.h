// Grids of more than 8 bits as bytes and residues; linear_residues.h multiplies them.
//
// A grid value is digit << residue_bits, and a residue where it is too small to be that: of normally distributed weights with a
// scale for the largest of a row (K = 4096), 32 of 1000 (e3m1) or 68 (e3m2) have one. Residues are written as sums of powers of two with
// signs, no two of them neighbours (the non-adjacent form), and for every power and sign the layout lists the k's that have it.
#pragma once

#include <vector>

#include "layout.h"

namespace minifloat {

// 0 where a plan's weights are not multiplied so.
int residue_bits(const Plan& p);

struct ByteDigit {
  int digit, residue;  // grid value = digit << residue_bits, plus residue
};
ByteDigit byte_digit(int grid, int residue_bits);

// What int16 sums of four pairs of products need, of signed bytes times activations that are cut off at +-clamp (linear_clamped.h):
// a pair of weights is at most 32767 / (2 clamp); of a sum's 8 weights and 8 activations the norms are at most these, as the
// activations' is where all 8 are cut off at clamp_of_full. The layout marks the octets (8 k's of 16 outputs) whose weights are larger.
struct ByteLimits {
  int clamp, weight_norm, activation_norm, clamp_of_full;
};
ByteLimits byte_limits(const Plan& p);

constexpr int kFewRows = 4;  // up to here bytes are decoded in registers

// Whether a call of m rows is quicker so, of weights of which such a share is listed: quicker than int16 digits, or with few rows
// than two digits.
bool residues_pay(const Plan& p, int64_t m, double share);

// Whether two bytes make every magnitude, each from a table of 16; linear_two_digits.h multiplies those.
bool has_two_digits(const Plan& p);

// Lists of k's: of output o of a panel those of sign (-1)**s and power 2**b are list (o * bits + b) * 2 + s. Each is filled up to
// a multiple of kResiduesATime with k_padded, where activations are taken to be 0.
constexpr int kResiduesATime = 4;
struct ResidueLists {
  int bits;
  const int32_t* begins;  // (panels * 16 * bits * 2 + 1)
  const uint16_t* at;

  int64_t list(int64_t panel, int output, int bit, int sign) const { return ((panel * kPanel + output) * bits + bit) * 2 + sign; }
  const uint16_t* of_panel(int64_t panel) const { return at + begins[list(panel, 0, 0, 0)]; }
};

// The lists of all panels, made before the layout is: how long they are depends on the weights.
class ResidueWriter {
 public:
  ResidueWriter(const Plan& plan, const Canonical& from);
  void collect(int64_t begin, int64_t end);  // panels, in any order
  int64_t bytes() const;                     // that the lists take behind the layout; 0 if they never pay and are left out
  void write(uint8_t* layout) const;

 private:
  struct PanelLists {
    std::vector<uint16_t> at;
    std::vector<int32_t> lengths;
  };
  const Plan& plan_;
  const Canonical& from_;
  int bits_;
  std::vector<PanelLists> panels_;
};

// Whether these may be all bytes of a layout, lists included.
bool are_layout(const Plan& plan, const uint8_t* layout, int64_t bytes);
// Of such bytes: the share of weights that are listed, 0 without lists; and the lists.
double residue_share(const Plan& plan, const uint8_t* layout, int64_t bytes);
ResidueLists residue_lists(const Plan& plan, const uint8_t* layout);

}  // namespace minifloat
