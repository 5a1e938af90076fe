#include "residues.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "significands.h"

namespace minifloat {
namespace {

constexpr int64_t kManyRows = 4096;  // a call that residues pay for, if they do for any

int64_t section_at(const Plan& plan) { return ceil_div(layout_of(plan).bytes, 8) * 8; }

int64_t list_count(const Plan& plan, int bits) { return ceil_div(plan.n, kPanel) * kPanel * bits * 2; }

// Behind a layout, what fills it up to 8 bytes included.
int64_t section_bytes(const Plan& plan, int bits, int64_t entries) {
  const int64_t begins = (list_count(plan, bits) + 1) * sizeof(int32_t);
  return section_at(plan) - layout_of(plan).bytes + int64_t(sizeof(int64_t)) + begins + entries * int64_t(sizeof(uint16_t));
}

constexpr ByteLimits limits_of(int largest, int clamp) {
  const int weight_norm = largest * 8 / 5, activation_norm = 32767 / weight_norm;
  int clamp_of_full = 1;
  while (8 * (clamp_of_full + 1) * (clamp_of_full + 1) <= activation_norm * activation_norm) ++clamp_of_full;
  return {clamp, weight_norm, activation_norm, clamp_of_full};
}
// Both are by measurement: grids of 8 bits need halved weights rarely with it, and bytes with residues are of smaller deviation.
constexpr int kClamp = 87, kClampBesideResidues = 102;
constexpr bool limits_hold(int largest, int clamp) {
  const ByteLimits l = limits_of(largest, clamp);
  const int half = (largest + 1) / 2;
  return 8 * half * half <= l.weight_norm * l.weight_norm && 4 * l.clamp * half <= 32767 &&  // halved weights
         (128 - l.clamp_of_full) * 256 <= 32767;                                              // what is cut off times any
}
static_assert(limits_hold(128, kClamp));
static_assert([] {
  bool hold = true;
  for (int largest = 64; largest < 128; ++largest) hold &= limits_hold(largest, kClampBesideResidues);
  return hold;
}());

int largest_magnitude(const Operand& o) {
  int largest = 0;
  for (int code = 0; code < 1 << o.bits; ++code) largest = std::max(largest, std::abs(o.grid[code]));
  return largest;
}

}  // namespace

ByteLimits byte_limits(const Plan& p) {
  const int bits = residue_bits(p);
  return bits ? limits_of(byte_digit(largest_magnitude(p.weight), bits).digit, kClampBesideResidues) : limits_of(127, kClamp);
}

int residue_bits(const Plan& p) {
  const bool whole_rows = p.folds == 1 && p.fold_padded >= 4 * kBlock && p.k_padded < 65535;
  if (!multiplies_significands(p) || p.carrier != kInt16 || p.weight.bits > 7 || !whole_rows || p.largest_activation > 128) return 0;
  const int largest = largest_magnitude(p.weight);
  int bits = 0;
  while (byte_digit(largest, bits).digit > 127) ++bits;
  return bits;
}

ByteDigit byte_digit(int grid, int residue_bits) {
  const int magnitude = std::abs(grid), half = residue_bits ? (1 << (residue_bits - 1)) - 1 : 0;
  const int digit = (magnitude + half) >> residue_bits;
  return {grid < 0 ? -digit : digit, grid < 0 ? (digit << residue_bits) - magnitude : magnitude - (digit << residue_bits)};
}

// Per 16 rows and output bytes save 0.05 ns for each k, decoding them as much again as 4 rows do; what is listed costs 0.45 ns each
// and 16 ns for both lists of a bit. Of few rows 2 save 0.017 ns, 3 and 4 0.031, and what is listed costs 0.3 (Zen 4, 3 GHz).
bool residues_pay(const Plan& p, int64_t m, double share) {
  if (m <= kFewRows) {
    const double saved = m == 1 ? 0 : m == 2 ? 0.017 : 0.031;
    return has_two_digits(p) && saved * double(p.k) >= 0.3 * share * double(p.k) + 16 * residue_bits(p);
  }
  const double tiles = double(ceil_div(m, kPanel));
  const double saved = 0.05 * double(p.k) * double(m + 4) / kPanel;
  const double spent = tiles * (0.45 * share * double(p.k) + 16 * residue_bits(p));
  return saved >= spent;
}

bool has_two_digits(const Plan& p) {
  const Operand& o = p.weight;
  if (!multiplies_significands(p) || p.carrier != kInt16 || (o.bits != 5 && o.bits != 6) || p.largest_activation > 127) return false;
  for (int code = 0; code < 1 << (o.bits - 1); ++code) {  // as much as int16 sums take, see PackedTwoDigits
    const int magnitude = o.grid[code];
    if (o.bits == 5 ? magnitude > 255 : code < 16 ? magnitude > 32 : magnitude % 8 != 0 || magnitude > 8 * 64) return false;
  }
  return true;
}

ResidueWriter::ResidueWriter(const Plan& plan, const Canonical& from)
    : plan_(plan), from_(from), bits_(residue_bits(plan)), panels_(bits_ ? ceil_div(plan.n, kPanel) : 0) {}

void ResidueWriter::collect(int64_t begin, int64_t end) {
  const Operand& o = plan_.weight;
  int residues[256];
  for (int code = 0; code < 1 << o.bits; ++code) residues[code] = byte_digit(o.grid[code], bits_).residue;
  std::vector<uint8_t> codes(plan_.k);
  std::vector<std::vector<uint16_t>> lists(2 * bits_);
  for (int64_t p = begin; p < end; ++p) {
    PanelLists& to = panels_[p];
    for (int64_t output = p * kPanel; output < (p + 1) * kPanel; ++output) {
      for (auto& list : lists) list.clear();
      if (output < plan_.n) {
        unpack_row(from_.packed + output * from_.packed_row_bytes, o.bits, plan_.k, codes.data());
        for (int64_t k = 0; k < plan_.k; ++k) {
          int residue = residues[codes[k]];
          for (int bit = 0; residue != 0; ++bit, residue >>= 1) {
            if (!(residue & 1)) continue;
            const bool negative = (residue & 3) == 3;
            residue += negative ? 1 : -1;
            lists[2 * bit + negative].push_back(uint16_t(k));
          }
        }
      }
      for (auto& list : lists) {
        while (list.size() % kResiduesATime) list.push_back(uint16_t(plan_.k_padded));
        to.at.insert(to.at.end(), list.begin(), list.end());
        to.lengths.push_back(int32_t(list.size()));
      }
    }
  }
}

int64_t ResidueWriter::bytes() const {
  int64_t count = 0;
  for (const PanelLists& panel : panels_) count += int64_t(panel.at.size());
  const double share = double(count) / (double(plan_.n) * double(plan_.k));
  if (!bits_ || count > INT32_MAX || !residues_pay(plan_, kManyRows, share)) return 0;
  return section_bytes(plan_, bits_, count);
}

void ResidueWriter::write(uint8_t* layout) const {
  uint8_t* section = layout + section_at(plan_);
  const int64_t length = bytes();
  std::memcpy(section, &length, sizeof(length));
  int32_t* begin = reinterpret_cast<int32_t*>(section + sizeof(length));
  uint16_t* at = reinterpret_cast<uint16_t*>(begin + list_count(plan_, bits_) + 1);
  int32_t sum = 0;
  for (const PanelLists& panel : panels_) {
    for (int32_t count : panel.lengths) {
      *begin++ = sum;
      sum += count;
    }
    at = std::copy(panel.at.begin(), panel.at.end(), at);
  }
  *begin = sum;
}

bool are_layout(const Plan& plan, const uint8_t* layout, int64_t bytes) {
  if (bytes == layout_of(plan).bytes) return true;
  const int bits = residue_bits(plan);
  if (!bits || bytes < layout_of(plan).bytes + section_bytes(plan, bits, 0)) return false;
  int64_t length;
  std::memcpy(&length, layout + section_at(plan), sizeof(length));
  return bytes == layout_of(plan).bytes + length;
}

double residue_share(const Plan& plan, const uint8_t* layout, int64_t bytes) {
  if (bytes == layout_of(plan).bytes) return 0;
  const ResidueLists lists = residue_lists(plan, layout);
  return double(lists.begins[list_count(plan, lists.bits)]) / (double(plan.n) * double(plan.k));
}

ResidueLists residue_lists(const Plan& plan, const uint8_t* layout) {
  const int bits = residue_bits(plan);
  const int32_t* begins = reinterpret_cast<const int32_t*>(layout + section_at(plan) + sizeof(int64_t));
  return {bits, begins, reinterpret_cast<const uint16_t*>(begins + list_count(plan, bits) + 1)};
}

}  // namespace minifloat
