"""How hardware reads one code: the fields of a minifloat, a two's complement integer, or a small table."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..formats import Format
from .module import Module, bit, literal

TABLE_BITS = 4  # a wider table would cost more than any multiplier it feeds


@dataclass(frozen=True)
class Operand:
    """One side of a product. letter: "w" or "a", the prefix of its signals.

    Codes that are not numbers (NaN, infinity) must not be presented unless `zero_specials`, which reads them as zero.
    """

    letter: str
    format: Format
    zero_specials: bool = False

    def __post_init__(self):
        if self.kind == "table" and self.format.bits > TABLE_BITS:
            raise ValueError(
                f"{self.format} is a codebook of {self.format.bits} bits: hardware supports codebooks of up to "
                f"{TABLE_BITS} bits; use a minifloat or an integer of that width"
            )

    @property
    def kind(self) -> str:
        """float: value = sig * 2**shift with a sign. int: two's complement or unsigned. table: a lookup."""
        return {"codebook": "table"}.get(self.format.kind, self.format.kind)

    @property
    def bits(self) -> int:
        return self.format.bits

    @cached_property
    def range(self) -> tuple[int, int]:
        """Smallest and largest grid integer."""
        grid = [int(g) for g in self.format.grid]
        return min(grid), max(grid)

    @property
    def signed(self) -> bool:
        return self.range[0] < 0

    @property
    def magnitude_bits(self) -> int:
        """Bits of the code without a float's sign."""
        return self.bits - (self.kind == "float" and self.format.signed)

    @property
    def significand_bits(self) -> int:
        """Width of a float's integer significand, the leading bit included."""
        return self.format.mantissa_bits + 1

    @cached_property
    def max_shift(self) -> int:
        """Largest left shift of the significand among the codes that are numbers; 0 for integers and tables."""
        if self.kind != "float":
            return 0
        f, lowest = self.format, 0 if self.format.special == "fnu" else 1
        fields = (code >> f.mantissa_bits & ((1 << f.exponent_bits) - 1) for code in range(1 << f.bits))
        return max(max(e, lowest) - lowest for e, number in zip(fields, f.is_number, strict=False) if number)

    @property
    def value_bits(self) -> int:
        """Width of the decoded integer of an int or table operand (two's complement if signed)."""
        low, high = self.range
        return max(high.bit_length() + self.signed, (-low - 1).bit_length() + 1 if low < 0 else 1, 1)

    # What follows adds the decoder's statements to a module and returns signal names.

    def sign(self, code: str) -> str | None:
        """The sign bit of a float; None if unsigned."""
        return f"{code}[{self.bits - 1}]" if self.format.signed else None

    def magnitude(self, code: str) -> str:
        """The code of a float without its sign."""
        return code if self.magnitude_bits == self.bits else f"{code}[{self.magnitude_bits - 1}:0]"

    def decode_float(self, m: Module, code: str) -> tuple[str, str | None, str | None]:
        """Signals of the significand, of the exponent field and of the effective exponent (None where it never varies).

        The effective exponent of subnormals is that of the smallest normal numbers.
        """
        f, x = self.format, self.letter
        e, mant = f.exponent_bits, f.mantissa_bits
        if f.special == "fnu":
            return m.wire(f"{x}_sig", 1, self._number(code) or "1'b1"), code, code
        exponent = m.wire(f"{x}_ex", e, code if e == f.bits else f"{code}[{e + mant - 1}:{mant}]")
        normal = m.wire(f"{x}_normal", 1, f"|{exponent}" if e > 1 else exponent)
        significand = f"{{{normal}{f', {code}[{mant - 1}:0]' if mant else ''}}}"
        if gate := self._number(code):
            significand += f" & {{{mant + 1}{{{gate}}}}}"
        sig = m.wire(f"{x}_sig", mant + 1, significand)
        if self.max_shift == 0:
            return sig, None, None
        return sig, exponent, m.wire(f"{x}_exp", e, f"{{{exponent}[{e - 1}:1], {exponent}[0] | ~{normal}}}")

    def shift_of_field(self, field: int) -> int:
        """The significand's left shift for a value of the exponent field."""
        return max(field, self.exponent_base) - self.exponent_base

    @property
    def exponent_base(self) -> int:
        """The effective exponent that means no shift."""
        return 0 if self.format.special == "fnu" else 1

    def decode_integer(self, m: Module, code: str) -> str:
        """The grid integer of an int or table operand, value_bits wide."""
        name = self.integer_name(code)
        if self.kind == "int":
            return name
        return lookup(m, name, code, self.bits, [int(g) for g in self.format.grid], self.value_bits)

    def integer_name(self, code: str) -> str:
        """The signal that decode_integer returns."""
        return code if self.kind == "int" else f"{self.letter}_value"

    def _number(self, code: str) -> str | None:
        """An expression that is 1 for numbers, where specials are to read as zero; None if there is nothing to gate."""
        if not self.zero_specials or self.format.is_number.all() or self.format.special == "fnuz":
            return None  # the NaN of fnuz is the code of minus zero, whose significand is zero already
        mant, top = self.format.mantissa_bits, self.magnitude_bits - 1
        return f"~&{code}[{top}:{mant if self.format.special == 'ieee' else 0}]"


def lookup(m: Module, name: str, index: str, index_bits: int, entries: list[int], bits: int) -> str:
    """A table, each output bit a constant indexed by only the index bits it depends on.

    A `case` would become a memory, and an index with idle bits hides small functions from the mapper.
    """
    m.wire(name, bits)
    for i in range(bits):
        column = [entry >> i & 1 for entry in entries]
        used = [j for j in range(index_bits) if any(column[p] != column[p ^ (1 << j)] for p in range(len(column)))]
        target = bit(name, bits, i)
        if not used:
            m.assign(target, literal(column[0], 1))
            continue
        places = [sum((q >> n & 1) << j for n, j in enumerate(used)) for q in range(1 << len(used))]
        constant = sum(column[p] << q for q, p in enumerate(places))
        m.wire(f"{name}_rom{i}", len(places), literal(constant, len(places)))
        picked = ", ".join(bit(index, index_bits, j) for j in reversed(used))
        m.assign(target, f"{name}_rom{i}[{index if len(used) == index_bits else f'{{{picked}}}'}]")
    return name
