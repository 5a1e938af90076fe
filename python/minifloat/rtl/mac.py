"""Mac: one multiply-accumulate a clock, exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..formats import Format, QuantSpec
from ..plan import Plan
from .arithmetic import Term, add
from .costs import cheapest
from .module import Module
from .operand import Operand
from .product import Cuts, Factors
from .variants import VARIANTS, fitting

MAX_ACCUMULATOR_BITS = 512
CUTS = {1: (), 2: ("product",), 3: ("product", "term"), 4: ("product", "term")}  # depth 4 also registers the codes


@dataclass(frozen=True)
class Pair:
    """A weight format times an activation format, and the circuit that multiplies them.

    variant: a name of variants.VARIANTS, or None for the cheapest one known (costs.py).
    zero_specials: read NaN and infinity as zero, as Format.grid does; otherwise such codes must not be presented.
    """

    weight: Format
    activation: Format
    variant: str | None = None
    zero_specials: bool = False

    @cached_property
    def w(self) -> Operand:
        return Operand("w", self.weight, self.zero_specials)

    @cached_property
    def a(self) -> Operand:
        return Operand("a", self.activation, self.zero_specials)

    @cached_property
    def plan(self) -> Plan:
        return Plan(QuantSpec(self.weight, "tensor"), QuantSpec(self.activation, "tensor"))

    @cached_property
    def circuit(self) -> str:
        """The variant's name.

        Raises:
            ValueError: the variant is unknown or does not fit these formats.
        """
        choices = fitting(self.w, self.a)
        if self.variant is None:
            known = cheapest(self.weight.name, self.activation.name)
            return known if known in choices else choices[0]
        if self.variant not in choices:
            raise ValueError(f"variant {self.variant!r} does not fit {self}: choose one of {', '.join(choices)}")
        return self.variant

    def __str__(self) -> str:
        return f"{self.weight} x {self.activation}"

    def accumulator_bits(self, k: int) -> int:
        """Width of an exact sum of k products.

        Raises:
            ValueError: k is not positive, or the sum is wider than hardware here supports.
        """
        if k < 1:
            raise ValueError(f"K={k}: a sum needs at least one product")
        bits = self.plan.accumulator_bits(k)
        if bits > MAX_ACCUMULATOR_BITS:
            raise ValueError(
                f"{self} at K={k} needs an accumulator of {bits} bits and the limit is {MAX_ACCUMULATOR_BITS}: "
                f"use formats with fewer exponent bits"
            )
        return bits

    def build(self, m: Module, w_code: str, a_code: str, cuts: Cuts) -> Term:
        """Add the multiplier to m; returns its Term."""
        return VARIANTS[self.circuit].build(m, Factors(self.w, self.a, w_code, a_code, cuts))

    def describe(self, k: int) -> list[str]:
        """Header lines: the formats, and why the accumulator cannot overflow."""
        w, a = max(map(abs, self.w.range)), max(map(abs, self.a.range))
        bits = self.accumulator_bits(k)
        lines = [
            f"w: {self.weight}, {self.w.bits} bits, integers of up to {w} times 2**{self.weight.unit}.",
            f"a: {self.activation}, {self.a.bits} bits, integers of up to {a} times 2**{self.activation.unit}.",
            f"Product circuit: {self.circuit}.",
            f"Accumulator: {k} products of up to {w * a} sum to at most {k * w * a} < 2**{bits - 1};",
            f"with the sign {bits} bits, which cannot overflow. One unit is worth 2**{self.plan.unit}.",
        ]
        if not (self.weight.is_number.all() and self.activation.is_number.all()):
            promise = "read as zero" if self.zero_specials else "must not be presented"
            lines.append(f"Codes that are not numbers (NaN, infinity) {promise}.")
        return lines


@dataclass(frozen=True)
class Mac:
    """acc += w * a.

    clear_i zeroes the accumulator in place of that clock's product; it travels through the pipeline with the products
    around it. There is no reset: hold clear_i for `depth` clocks. valid_o says that acc_o has just taken a product.

    Args:
        pair: formats and circuit.
        k: the most products between two clears.
        depth: clocks from a product's codes to acc_o, 1..4.
    """

    pair: Pair
    k: int = 1024
    depth: int = 1

    def __post_init__(self):
        if self.depth not in CUTS:
            raise ValueError(f"depth={self.depth}: a Mac has a pipeline depth of 1 to 4")

    @property
    def name(self) -> str:
        return f"mac_{self.pair.weight.name}_{self.pair.activation.name}".replace("-", "m")

    @cached_property
    def accumulator_bits(self) -> int:
        return self.pair.accumulator_bits(self.k)

    def module(self, name: str | None = None) -> Module:
        pair, bits = self.pair, self.accumulator_bits
        m = Module(
            name or self.name,
            [
                f"{self.name}: acc_o = sum of w_i * a_i, exact, one product a clock, latency {self.depth}.",
                *pair.describe(self.k),
                f"clear_i zeroes the sum instead of adding; at start hold it for {self.depth} clocks.",
            ],
        )
        for port in ("clk_i", "clear_i", "valid_i"):
            m.input(port)
        m.input("w_i", pair.w.bits)
        m.input("a_i", pair.a.bits)
        m.output("acc_o", bits)
        m.output("valid_o")
        codes = ["w_i", "a_i"]
        if self.depth == 4:
            m.note("Operand registers.")
            m.wire("w_code", pair.w.bits, "w_i")
            m.wire("a_code", pair.a.bits, "a_i")
            codes = m.register([("w_code", pair.w.bits), ("a_code", pair.a.bits)])
        m.note("Product.")
        term = pair.build(m, *codes, Cuts(m, CUTS[self.depth]))
        m.note("Control, delayed as the products are.")
        control = ["clear_i", "valid_i"]
        for stage in range(1, self.depth):
            m.wire(f"clear_{stage}", 1)
            m.wire(f"valid_{stage}", 1)
            m.clocked([f"clear_{stage} <= {control[0]};", f"valid_{stage} <= {control[1]};"])
            control = [f"clear_{stage}", f"valid_{stage}"]
        m.note("Exact accumulation.")
        m.wire("acc_q", bits)
        m.wire("valid_q", 1)
        total = add(m, "acc_next", "acc_q", term.x.to(bits), term.carry, bits)
        m.clocked(
            [
                f"if ({control[0]}) valid_q <= 1'b0;",
                f"else valid_q <= {control[1]};",
                f"if ({control[0]}) acc_q <= {bits}'d0;",
                f"else if ({control[1]}) acc_q <= {total};",
            ]
        )
        m.assign("acc_o", "acc_q")
        m.assign("valid_o", "valid_q")
        return m


def mac(weight: str | Format, activation: str | Format, k: int = 1024, depth: int = 1, **options) -> Mac:
    """A Mac from format names; options are those of Pair."""
    return Mac(Pair(Format.parse(weight), Format.parse(activation), **options), k, depth)
