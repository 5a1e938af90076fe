"""A code of any format as the two's complement integer of its grid."""

from __future__ import annotations

from ..formats import Format
from .arithmetic import Integer, width
from .module import Module, extend, spread
from .operand import Operand, lookup
from .shift import shift_binary, shift_of

TABLE_BITS = 6


def fixed_decoder(name: str, format: Format) -> tuple[Module, Integer]:
    """A module code_i -> value_o, and value_o with its range."""
    x = Operand("a", format)
    low, high = x.range
    bits = width(low, high)
    m = Module(name, [f"{format} code to an integer of [{low}, {high}], in units of 2**{format.unit}."])
    m.input("code_i", x.bits)
    m.output("value_o", bits)
    m.assign("value_o", _value(m, x, bits))
    return m, Integer("value_o", bits, low, high)


def _value(m: Module, x: Operand, bits: int) -> str:
    if x.kind == "int":
        return "code_i"
    if x.bits <= TABLE_BITS:
        return lookup(m, "value", "code_i", x.bits, [int(g) for g in x.format.grid], bits)
    sig, raw, exponent = x.decode_float(m, "code_i")
    u = Integer(sig, x.significand_bits, 0, (1 << x.significand_bits) - 1)
    amount = shift_of(m, [(x, raw, exponent)])
    u = shift_binary(m, u, amount) if amount else u
    sign = x.sign("code_i")
    if sign is None:
        return u.to(bits)
    return f"({u.to(bits)} ^ {spread(sign, bits)}) + {extend(sign, 1, bits, False)}"
