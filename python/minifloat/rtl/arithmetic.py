"""Adders with a carry-in and radix-4 Booth rows, written so that synthesis keeps one carry chain for each sum."""

from __future__ import annotations

from dataclasses import dataclass

from .module import Module, bit, extend, spread


@dataclass(frozen=True)
class Integer:
    """A signal that holds an integer of [low, high]: two's complement if low < 0."""

    name: str
    bits: int
    low: int
    high: int

    @property
    def signed(self) -> bool:
        return self.low < 0

    def renamed(self, name: str) -> Integer:
        """The same integer held by another signal."""
        return Integer(name, self.bits, self.low, self.high)

    def to(self, bits: int) -> str:
        return extend(self.name, self.bits, bits, self.signed)


@dataclass(frozen=True)
class Term:
    """What is to be added to a sum: the integer x (which lies in [low, high]) plus the one-bit carry, if there is one.

    A negative product is its complement with the carry set: the +1 enters a carry chain that is there anyway.
    """

    x: Integer
    carry: str | None = None


def width(low: int, high: int) -> int:
    """Bits of a signal that holds every integer of [low, high]."""
    if low >= 0:
        return max(high.bit_length(), 1)
    return max((-low - 1).bit_length(), high.bit_length() if high > 0 else 0) + 1


def add(m: Module, name: str, a: str, b: str, carry: str | None, bits: int) -> str:
    """name = a + b + carry, each `bits` wide. The carry enters below bit 0: a second `+` would be a second adder."""
    if carry is None:
        return m.wire(name, bits, f"{a} + {b}")
    m.wire(f"{name}_wide", bits + 1, f"{{{a}, 1'b1}} + {{{b}, {carry}}}")
    return m.wire(name, bits, f"{name}_wide[{bits}:1]")


@dataclass(frozen=True)
class Row:
    """One Booth row: digit * multiplicand, as complemented bits plus a carry (None if the digit is never negative)."""

    x: Integer
    carry: str | None


def booth_row_count(multiplier: Integer) -> int:
    return (multiplier.bits + 2 - multiplier.signed) // 2


def booth_rows(m: Module, multiplier: Integer, multiplicand: Integer) -> list[Row]:
    """The rows of multiplier * multiplicand, the row i worth 4**i.

    Digit i of -2..2 is read from bits 2i+1, 2i, 2i-1 of the multiplier.
    Source: MacSorley, "High-Speed Arithmetic in Binary Computers", 1961.
    """
    rows = []
    y = multiplier
    for i in range(booth_row_count(y)):
        high, middle, low = (_multiplier_bit(y, j) for j in (2 * i + 1, 2 * i, 2 * i - 1))
        if y.signed and 2 * i + 1 >= y.bits:
            two = None  # high is a copy of middle: the digit is -1, 0 or 1
        elif high:
            two = f"({high} & ~{middle}" + (f" & ~{low}) | (~{high} & {middle} & {low})" if low else ")")
        else:
            two = f"{middle} & {low}" if middle and low else None
        one = m.wire(f"row{i}_one", 1, " ^ ".join(b for b in (middle, low) if b))
        two = two and m.wire(f"row{i}_two", 1, two)
        negative = m.wire(f"row{i}_negative", 1, high) if high else None
        rows.append(_row(m, f"row{i}", multiplicand, one, two, negative))
    return rows


def _row(m: Module, name: str, x: Integer, one: str, two: str | None, negative: str | None) -> Row:
    bits = x.bits + (two is not None) + (negative is not None and not x.signed)
    picked = f"({x.to(bits)} & {spread(one, bits)})"
    if two:
        picked += f" | ({{{x.to(bits - 1)}, 1'b0}} & {spread(two, bits)})"
    if negative:
        picked = f"({picked}) ^ {spread(negative, bits)}"
    size = 2 * max(abs(x.low), x.high)
    low = -size - 1 if negative else 2 * min(x.low, 0)  # complemented without its carry: one less
    return Row(Integer(m.wire(name, bits, picked), bits, low, size), negative)


def sum_rows(m: Module, rows: list[Row], low: int, high: int) -> Term:
    """The sum of rows worth 4**i each, known to lie in [low, high]; the carry of row 0 stays outside."""
    carry, total = rows[0].carry, rows[0].x
    low -= carry is not None
    done: list[str] = []  # finished low bits, two a row
    for i, row in enumerate(rows[1:], start=1):
        rest = without_low_two(m, f"rest{i}", total)
        done = [extend(total.name, total.bits, 2, total.signed), *done]
        if i < len(rows) - 1:
            limits = rest.low + row.x.low, rest.high + row.x.high + 1
        else:
            limits = low >> 2 * i, high >> 2 * i
        bits = width(*limits)
        name = add(m, f"sum{i}", rest.to(bits), row.x.to(bits), row.carry, bits)
        total = Integer(name, bits, *limits)
    bits = total.bits + 2 * len(done)
    if done:
        total = Integer(m.wire("product", bits, f"{{{', '.join([total.name, *done])}}}"), bits, low, high)
    return Term(total, carry)


def without_low_two(m: Module, name: str, x: Integer) -> Integer:
    """x >> 2."""
    bits = max(x.bits - 2, 1)
    top = x.bits - 1
    if x.bits > 2:
        kept = f"{x.name}[{top}:2]" if bits > 1 else f"{x.name}[2]"
    else:
        kept = bit(x.name, x.bits, top) if x.signed else "1'b0"
    return Integer(m.wire(name, bits, kept), bits, x.low >> 2, x.high >> 2)


def _multiplier_bit(y: Integer, index: int) -> str | None:
    """A bit of the multiplier, sign-extended; None where it is known to be zero."""
    if index < 0 or (index >= y.bits and not y.signed):
        return None
    return bit(y.name, y.bits, min(index, y.bits - 1))
