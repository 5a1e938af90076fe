// Which algorithm multiplies: decided here for every plan, number of rows and instruction set, and nowhere else.
#pragma once

#include <string>

#include "plan.h"

namespace minifloat {

// How pairs of 8-bit digits are multiplied and summed (carrier kInt8); see linear_int8.h.
struct Method {
  enum Kind { kDot, kOffset, kModular, kSigned, kClamped, kNibbles, kTwoDigits } kind;
  int depth;             // pairs of products per int16 sum
  bool guarded = false;  // so deep only in blocks that the layout does not mark, see guards_sums, byte_limits
};
// One int16 sum is all of a fold of one block (32 k's): widened once, never added up.
constexpr bool is_one_block(Method m) { return m.kind == Method::kModular && m.depth == 8; }

// How the digits of codes are found: a code is its digit; a table of all codes; of six bits, magnitudes of which the first 16 are
// the code's low bits and the others a table's, and a sign; a table of magnitudes, and a sign.
enum class Lookup { kNone, kTable, kMagnitudes, kSignedTable };

// Elsewhere the extra addition of kModular and kClamped pays for panels only. Nibbles of looked-up digits are a last resort.
constexpr bool for_panels_only(Method m, Lookup lookup) {
  return (m.kind == Method::kModular && !is_one_block(m)) || m.kind == Method::kClamped ||
         (m.kind == Method::kNibbles && lookup != Lookup::kNone);
}

// Many rows are unlikely to have small norms all.
constexpr bool for_registers_only(Method m) { return m.kind == Method::kSigned && m.guarded; }

// Few rows: decode in registers, again for every tile of rows. Many: decode a panel of 16 outputs once, into L1 or L2.
// Float contract, more rows still: decode to memory and call torch's matrix product.
enum class Decode { kRegisters, kPanel, kGemm };

// What an instruction set is good at.
struct Traits {
  bool has_dot;              // a dot product instruction
  int most_register_rows;    // carrier kInt8, Decode::kRegisters up to here
  int most_select_rows;      // the same where a digit is selected from several tables, which takes registers
  int most_register_shorts;  // carriers of int16, of powers of two: other numbers would be decoded twice
  int most_register_words;   // other carriers
  bool quick_float;          // carrier kFloat: as quick as a matrix product of torch's that is not tuned for the CPU
};

// Methods of carrier kInt16: as linear_two_digits.h does, up to 4 rows, or as linear_residues.h does (neither where there is a dot
// product instruction), or int16 digits.
inline constexpr const char *kTwoDigits = "two_digits", *kResidues = "residues", *kWords = "words";

struct Choice {
  const char* method;  // name of a line of kMethods; of the above for carrier kInt16; "" for others
  Decode decode;
  bool clamps = false;  // it depends on Rare::beyond: choose again where that was not counted
  Lookup lookup = Lookup::kTable;  // carrier kInt8
};

struct MethodLine {
  const char* name;
  Method method;
  bool (*exact)(const Plan&);                  // the plan's proof that no int16 sum overflows
  bool (*compiled)(int bits, Lookup lookup);   // combinations that no format needs are left out
};

// From the quickest to the slowest: the first line that is exact and compiled is taken.
inline constexpr MethodLine kMethods[] = {
    {"dot", {Method::kDot, 1}, [](const Plan&) { return true; }, [](int, Lookup) { return true; }},
    {"offset8", {Method::kOffset, 8}, [](const Plan& p) { return p.depth >= 8; },
     [](int bits, Lookup) { return bits <= 4; }},
    {"modular8", {Method::kModular, 8},
     [](const Plan& p) { return p.depth >= 1 && p.signed_depth >= 8 && p.fold_padded == kBlock; },
     [](int bits, Lookup l) { return l == Lookup::kTable && bits == 4; }},
    {"offset4", {Method::kOffset, 4}, [](const Plan& p) { return p.depth >= 4; },
     [](int bits, Lookup l) { return l == Lookup::kTable ? bits >= 3 && bits <= 5 : bits == 5; }},
    {"modular4", {Method::kModular, 4}, [](const Plan& p) { return p.depth >= 1 && p.signed_depth >= 4; },
     [](int bits, Lookup l) { return l == Lookup::kTable ? bits == 5 : bits == 6; }},
    {"guarded4", {Method::kModular, 4, true}, [](const Plan& p) { return p.depth >= 1 && guards_sums(p); },
     [](int bits, Lookup l) { return l == Lookup::kMagnitudes || (l == Lookup::kNone && bits >= 7); }},
    {"modular2", {Method::kModular, 2}, [](const Plan& p) { return p.depth >= 1 && p.signed_depth >= 2; },
     [](int bits, Lookup l) { return l == Lookup::kMagnitudes || (l == Lookup::kTable ? bits == 7 : bits >= 7); }},
    {"signed2", {Method::kSigned, 2}, [](const Plan& p) { return p.signed_depth >= 2; },
     [](int, Lookup l) { return l == Lookup::kMagnitudes; }},
    {"offset2", {Method::kOffset, 2}, [](const Plan& p) { return p.depth >= 2; },
     [](int bits, Lookup l) { return l == Lookup::kTable ? bits == 5 : bits == 6; }},
    {"offset1", {Method::kOffset, 1}, [](const Plan& p) { return p.depth >= 1; },
     [](int bits, Lookup l) { return l == Lookup::kMagnitudes || (l == Lookup::kTable ? bits >= 4 && bits <= 7 : bits >= 7); }},
    {"clamped4", {Method::kClamped, 4}, clamps_activations, [](int bits, Lookup) { return bits >= 7; }},
    {"signed4", {Method::kSigned, kGuardedDepth, true}, clamps_activations,
     [](int bits, Lookup l) { return l == Lookup::kNone && bits == 8; }},
    {"signed1", {Method::kSigned, 1}, [](const Plan& p) { return p.signed_depth >= 1; },
     [](int bits, Lookup l) { return l == Lookup::kTable ? bits >= 7 : bits == 8; }},
    {"nibbles", {Method::kNibbles, 1}, [](const Plan&) { return true; },
     [](int bits, Lookup l) { return l == Lookup::kTable || bits == 8; }},
};

// What is rare, or a method is not the quickest: a share of blocks that the weight's layout marks, of activations beyond the clamp
// (byte_limits).
struct Rare {
  double marked = 0, beyond = 0;
  double residues = 0;  // of weights that the layout lists, see residues.h
};
double share_beyond_clamp(const Plan& p, const void* digits, int64_t m);

Choice choose(const Plan& p, int64_t m, const Traits& traits, Rare rare);

// For tests and measurements: from now on `method` wherever it is exact and compiled, and `decode` ("registers", "panel",
// "gemm") wherever it is possible. Empty: as the tables say. Throws std::invalid_argument for other names.
void force_choice(const std::string& method, const std::string& decode);

}  // namespace minifloat
