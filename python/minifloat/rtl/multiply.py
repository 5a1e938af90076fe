"""Multipliers of small unsigned significands, each returning the product as an Integer."""

from __future__ import annotations

from .arithmetic import Integer, width, without_low_two
from .module import Module, bit, extend, spread
from .operand import lookup


def times(m: Module, y: Integer, x: Integer) -> Integer:
    """Left to the synthesis tool."""
    high = y.high * x.high
    bits, wide = width(0, high), y.bits + x.bits
    m.wire("significand_wide", wide, f"{y.to(wide)} * {x.to(wide)}")
    return Integer(m.wire("significand", bits, extend("significand_wide", wide, bits, False)), bits, 0, high)


def times_rom(m: Module, y: Integer, x: Integer) -> Integer:
    """A table of all products."""
    entries = [j * i for j in range(1 << y.bits) for i in range(1 << x.bits)]
    bits = width(0, max(entries))
    index = m.wire("index", y.bits + x.bits, f"{{{y.name}, {x.name}}}")
    return Integer(lookup(m, "significand", index, y.bits + x.bits, entries, bits), bits, 0, max(entries))


def times_narrow(m: Module, y: Integer, x: Integer) -> Integer:
    """Rows of the wider factor, selected by the bits of the narrower."""
    y, x = (y, x) if y.bits <= x.bits else (x, y)
    return times_rows(m, y, x)


def times_rows(m: Module, y: Integer, x: Integer) -> Integer:
    """x (signed or not) selected by each bit of the unsigned y, added lowest first."""
    total, done = _selected(m, "part0", x, bit(y.name, y.bits, 0)), []
    for j in range(1, y.bits):
        done = [bit(total.name, total.bits, 0), *done]
        bits = max(total.bits - 1, 1)
        upper = Integer(m.wire(f"upper{j}", bits, _above_lowest(total)), bits, total.low >> 1, total.high >> 1)
        row = _selected(m, f"row{j}", x, bit(y.name, y.bits, j))
        low, high = upper.low + row.low, upper.high + row.high
        bits = width(low, high)
        total = Integer(m.wire(f"part{j}", bits, f"{upper.to(bits)} + {row.to(bits)}"), bits, low, high)
    if not done:
        return total
    bits = total.bits + len(done)
    joined = m.wire("significand", bits, f"{{{', '.join([total.name, *done])}}}")
    return Integer(joined, bits, min(x.low * y.high, 0), x.high * y.high)


def _selected(m: Module, name: str, x: Integer, chosen: str) -> Integer:
    """x if chosen, else 0."""
    return Integer(m.wire(name, x.bits, f"{x.name} & {spread(chosen, x.bits)}"), x.bits, min(x.low, 0), x.high)


def _above_lowest(x: Integer) -> str:
    if x.bits == 1:
        return x.name if x.signed else "1'b0"
    return f"{x.name}[{x.bits - 1}:1]" if x.bits > 2 else f"{x.name}[1]"


def times_digits_narrow(m: Module, y: Integer, x: Integer) -> Integer:
    """times_digits with the narrower factor cut into digits."""
    return times_digits(m, *((y, x) if y.bits <= x.bits else (x, y)))


def times_digits_wide(m: Module, y: Integer, x: Integer) -> Integer:
    """times_digits with the wider factor cut into digits."""
    return times_digits(m, *((x, y) if y.bits <= x.bits else (y, x)))


def times_digits(m: Module, y: Integer, x: Integer) -> Integer:
    """Rows of two bits of y times x. Up to 4 bits of x, every row bit is one LUT6."""
    digits = [(low, min(2, y.bits - low)) for low in range(0, y.bits, 2)]
    total, done = None, []
    for n, (low, size) in enumerate(digits):
        digit = y.name if size == y.bits else f"{y.name}[{low + size - 1}:{low}]"
        entries = [j * i for j in range(1 << size) for i in range(1 << x.bits)]
        row_bits = width(0, max(entries))
        index = m.wire(f"digit{n}", size + x.bits, f"{{{digit}, {x.name}}}")
        row = Integer(lookup(m, f"row{n}", index, size + x.bits, entries, row_bits), row_bits, 0, max(entries))
        if total is None:
            total = row
            continue
        done = [extend(total.name, total.bits, 2, False), *done]
        upper = without_low_two(m, f"upper{n}", total)
        high = upper.high + row.high
        bits = width(0, high)
        total = Integer(m.wire(f"part{n}", bits, f"{upper.to(bits)} + {row.to(bits)}"), bits, 0, high)
    bits, high = width(0, x.high * y.high), x.high * y.high
    wide = total.bits + 2 * len(done)
    m.wire("significand_wide", wide, f"{{{', '.join([total.name, *done])}}}")
    return Integer(m.wire("significand", bits, extend("significand_wide", wide, bits, False)), bits, 0, high)
