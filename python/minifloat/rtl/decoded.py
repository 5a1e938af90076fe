"""An operand that was decoded earlier: a bus of sign, effective exponent and significand, or a table's integer."""

from __future__ import annotations

from dataclasses import dataclass

from .module import Module
from .operand import Operand


@dataclass(frozen=True)
class Decoded(Operand):
    """As Operand, but `code` is the bus that `decode` makes: {sign, effective exponent, significand} for a float."""

    @property
    def exponent_width(self) -> int:
        return self.format.exponent_bits if self.max_shift else 0

    @property
    def bus_bits(self) -> int:
        if self.kind == "float":
            return self.format.signed + self.exponent_width + self.significand_bits
        return self.value_bits

    def decode(self, m: Module, code: str) -> str:
        """Add the decoder of a code; returns the bus."""
        plain = Operand(self.letter, self.format, self.zero_specials)
        if self.kind != "float":
            return plain.decode_integer(m, code)
        sig, _, exponent = plain.decode_float(m, code)
        parts = [part for part in (plain.sign(code), exponent, sig) if part]
        return m.wire(f"{self.letter}_bus", self.bus_bits, f"{{{', '.join(parts)}}}")

    def decode_float(self, m: Module, code: str) -> tuple[str, str | None, str | None]:
        s, e = self.significand_bits, self.exponent_width
        sig = m.wire(f"{self.letter}_sig", s, f"{code}[{s - 1}:0]" if self.bus_bits > 1 else code)
        if not e:
            return sig, None, None
        exponent = m.wire(f"{self.letter}_exp", e, f"{code}[{s + e - 1}:{s}]")
        return sig, exponent, exponent  # the effective exponent stands for itself among the fields

    def sign(self, code: str) -> str | None:
        return f"{code}[{self.bus_bits - 1}]" if self.format.signed else None

    def decode_integer(self, m: Module, code: str) -> str:
        return code

    def integer_name(self, code: str) -> str:
        return code
