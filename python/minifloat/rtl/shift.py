"""The shift of a significand product by the sum of two effective exponents."""

from __future__ import annotations

from dataclasses import dataclass

from .arithmetic import Integer, width
from .module import Module, bit, literal
from .operand import Operand, lookup

ROM_BITS = 4  # above this an adder of the exponents is smaller (measured)


@dataclass(frozen=True)
class Shift:
    """A left shift by amount - base, where `amount` is a signal of [base, most + base]."""

    amount: Integer
    base: int
    most: int

    def renamed(self, name: str) -> Shift:
        return Shift(self.amount.renamed(name), self.base, self.most)


def shift_of(m: Module, exponents: list[tuple[Operand, str | None, str | None]]) -> Shift | None:
    """The sum of the effective exponents of (operand, raw exponent field, effective exponent); None if it never varies.

    Few exponent bits go through a table of the raw fields. Otherwise the sum keeps its base, which costs nothing: the
    bits that the base shifts beyond are not built.
    """
    present = [e for e in exponents if e[2]]
    if not present:
        return None
    most = sum(x.max_shift for x, _, _ in present)
    index_bits = sum(x.format.exponent_bits for x, _, _ in present)
    if index_bits <= ROM_BITS:
        index = m.wire("exponents", index_bits, f"{{{', '.join(raw for _, raw, _ in present)}}}")
        entries = [0]
        for x, _, _ in present:
            entries = [
                before + x.shift_of_field(field) for before in entries for field in range(1 << x.format.exponent_bits)
            ]
        bits = width(0, max(entries))
        return Shift(Integer(lookup(m, "shift", index, index_bits, entries, bits), bits, 0, most), 0, most)
    base = sum(x.exponent_base for x, _, _ in present)
    bits = width(0, most + base)
    terms = [Integer(name, x.format.exponent_bits, 0, most + base).to(bits) for x, _, name in present]
    return Shift(Integer(m.wire("exponent", bits, " + ".join(terms)), bits, base, most + base), base, most)


def shift_binary(m: Module, u: Integer, s: Shift) -> Integer:
    """u << (amount - base) as the synthesis tool's logarithmic shifter."""
    wide = u.bits + s.most + s.base
    m.wire("shifted_wide", wide, f"{u.to(wide)} << {s.amount.name}")
    bits = u.bits + s.most
    kept = f"shifted_wide[{wide - 1}:{s.base}]" if s.base else "shifted_wide"
    return Integer(m.wire("shifted", bits, kept), bits, u.low << s.most, u.high << s.most)


def fine_bits(u_bits: int) -> int:
    """The fewest low bits of the amount to shift by first, so that every final bit has at most two sources."""
    fine = 0
    while u_bits > (1 << fine) + 1:
        fine += 1
    return fine


def shift_onehot(m: Module, u: Integer, s: Shift) -> Integer:
    """A fine shift, then AND-OR with one-hot coarse selects.

    Each final bit has two candidates: with two selects, sign and accumulator bit, that is one LUT6 of the adder.
    """
    fine = fine_bits(u.bits)
    step, coarse = 1 << fine, ((s.most + s.base) >> fine) + 1
    bits = u.bits + step - 1
    low = f"{s.amount.name}[{fine - 1}:0]" if fine > 1 else f"{s.amount.name}[0]"
    v = u.name
    if fine:
        v = m.wire("fine", bits, f"{u.to(bits)} << {low}")
    for k in range(coarse):
        high = f"{s.amount.name}[{s.amount.bits - 1}:{fine}]"
        m.wire(f"at{k * step}", 1, f"{high} == {literal(k, s.amount.bits - fine)}")
    out = u.bits + s.most
    m.wire("shifted", out)
    for p in range(out):
        sources = [(k, p + s.base - k * step) for k in range(coarse) if 0 <= p + s.base - k * step < bits]
        picked = [f"({bit(v, bits, j)} & at{k * step})" for k, j in sources]
        m.assign(bit("shifted", out, p), " | ".join(picked) if picked else "1'b0")
    return Integer("shifted", out, 0, u.high << s.most)
