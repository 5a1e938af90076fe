"""The product of two codes as a term to be summed. Each circuit here computes the same; variants.py lists them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .arithmetic import Integer, Row, Term, booth_row_count, booth_rows, sum_rows, width
from .module import Module, bit, extend, spread
from .multiply import times_rows
from .operand import Operand, lookup
from .shift import Shift, shift_binary, shift_of


@dataclass
class Cuts:
    """Where pipeline registers go. points: names among "product" and "term"."""

    module: Module
    points: tuple[str, ...]

    def at(self, point: str, signals: list[tuple[str | None, int]]) -> list[str | None]:
        """The signals behind the registers of this point if it is a cut, else unchanged; None passes."""
        if point not in self.points:
            return [name for name, _ in signals]
        real = [(name, bits) for name, bits in signals if name]
        renamed = dict(zip((name for name, _ in real), self.module.register(real), strict=True))
        return [name and renamed[name] for name, _ in signals]


@dataclass(frozen=True)
class Factors:
    """The two operands of a product, the signals that hold their codes, and where the circuit is cut."""

    w: Operand
    a: Operand
    w_code: str
    a_code: str
    cuts: Cuts

    @property
    def sides(self) -> list[tuple[Operand, str]]:
        return [(self.w, self.w_code), (self.a, self.a_code)]

    @property
    def range(self) -> tuple[int, int]:
        """Smallest and largest product of two grid integers."""
        ends = [x * y for x in self.w.range for y in self.a.range]
        return min(ends), max(ends)


def rom(m: Module, f: Factors) -> Term:
    """The whole product in a table of the magnitude bits; signs of floats are XORed outside."""
    tables = [[_entry(x, code) for code in range(1 << x.magnitude_bits)] for x, _ in f.sides]
    entries = [j * i for j in tables[0] for i in tables[1]]
    low, high = min(entries), max(entries)
    index_bits, bits = f.w.magnitude_bits + f.a.magnitude_bits, width(low, high)
    index = m.wire("index", index_bits, f"{{{', '.join(x.magnitude(code) for x, code in f.sides)}}}")
    table = Integer(lookup(m, "rom", index, index_bits, entries, bits), bits, low, high)
    negative = _xor(m, [x.sign(code) for x, code in f.sides if x.kind == "float"])
    return _shifted_and_signed(m, table, negative, None, f)


def _entry(x: Operand, code: int) -> int:
    grid = int(x.format.grid[code])
    return abs(grid) if x.kind == "float" else grid


def magnitude(multiply: Callable, shift: Callable = shift_binary) -> Callable:
    """Unsigned significands times each other, shifted by the sum of the exponents, negated by the XOR of the signs."""

    def build(m: Module, f: Factors) -> Term:
        fields = [_significand(m, x, code) for x, code in f.sides]
        u = multiply(m, *(sig for sig, _, _ in fields))
        negative = _xor(m, [_sign(x, code) for x, code in f.sides])
        amount = shift_of(m, [(x, raw, exp) for (x, _), (_, raw, exp) in zip(f.sides, fields, strict=True)])
        return _shifted_and_signed(m, u, negative, amount, f, shift)

    return build


def mixed(m: Module, f: Factors) -> Term:
    """The integer, selected by the bits of the float's significand; then shifted, and negated by the float's sign."""
    (x, x_code), (n, n_code) = f.sides if f.w.kind == "float" else f.sides[::-1]
    sig, raw, exponent = _significand(m, x, x_code)
    u = times_rows(m, sig, Integer(n.decode_integer(m, n_code), n.value_bits, *n.range))
    return _shifted_and_signed(m, u, _xor(m, [x.sign(x_code)]), shift_of(m, [(x, raw, exponent)]), f)


def booth(m: Module, f: Factors) -> Term:
    """Radix-4 Booth rows of two integers; the factor with fewer rows is recoded."""
    integers = [Integer(x.decode_integer(m, code), x.value_bits, *x.range) for x, code in f.sides]
    y, x = sorted(integers, key=booth_row_count)
    rows = booth_rows(m, y, x)
    names = f.cuts.at("product", [pair for r in rows for pair in ((r.x.name, r.x.bits), (r.carry, 1))])
    rows = [Row(r.x.renamed(names[2 * i]), names[2 * i + 1]) for i, r in enumerate(rows)]
    return _cut_term(sum_rows(m, rows, *f.range), f.cuts)


def star(m: Module, f: Factors) -> Term:
    """Two integers multiplied as the synthesis tool sees fit: what a plain `*` costs."""
    bits = width(*f.range)
    widened = [Integer(x.decode_integer(m, code), x.value_bits, *x.range).to(bits) for x, code in f.sides]
    u = Integer(m.wire("product", bits, " * ".join(widened)), bits, *f.range)
    return _shifted_and_signed(m, u, None, None, f)


def _xor(m: Module, signs: list[str | None]) -> str | None:
    signs = [s for s in signs if s]
    return m.wire("negative", 1, " ^ ".join(signs)) if signs else None


def _significand(m: Module, x: Operand, code: str) -> tuple[Integer, str | None, str | None]:
    """An unsigned integer, exponent field and effective exponent: of a float, or the magnitude of an int or table."""
    if x.kind == "float":
        sig, raw, exponent = x.decode_float(m, code)
        return Integer(sig, x.significand_bits, 0, (1 << x.significand_bits) - 1), raw, exponent
    value = Integer(x.decode_integer(m, code), x.value_bits, *x.range)
    if not x.signed:
        return value, None, None
    size = max(-value.low, value.high)
    bits = width(0, size)
    top = bit(value.name, value.bits, value.bits - 1)
    name = m.wire(f"{x.letter}_size", bits, f"({value.to(bits)} ^ {spread(top, bits)}) + {extend(top, 1, bits, False)}")
    return Integer(name, bits, 0, size), None, None


def _sign(x: Operand, code: str) -> str | None:
    if x.kind == "float":
        return x.sign(code)
    return bit(x.integer_name(code), x.value_bits, x.value_bits - 1) if x.signed else None


def _shifted_and_signed(
    m: Module, u: Integer, negative: str | None, s: Shift | None, f: Factors, shift=shift_binary
) -> Term:
    """((u << s) ^ negative) + negative."""
    amount = (s.amount.name, s.amount.bits) if s else (None, 1)
    name, negative, amount = f.cuts.at("product", [(u.name, u.bits), (negative, 1), amount])
    u, (low, high) = u.renamed(name), f.range
    if s:
        u = shift(m, u, s.renamed(amount))
    bits = width(low - (negative is not None), high)
    if negative:
        name = m.wire("term", bits, f"{u.to(bits)} ^ {spread(negative, bits)}")
        return _cut_term(Term(Integer(name, bits, low - 1, high), negative), f.cuts)
    name = u.name if bits == u.bits else m.wire("term", bits, u.to(bits))
    return _cut_term(Term(Integer(name, bits, low, high)), f.cuts)


def _cut_term(term: Term, cuts: Cuts) -> Term:
    name, carry = cuts.at("term", [(term.x.name, term.x.bits), (term.carry, 1)])
    return Term(term.x.renamed(name), carry)
