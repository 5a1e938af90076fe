"""Dot: P products a clock, summed by a tree and accumulated over beats, exact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .arithmetic import Term, add
from .mac import Pair
from .module import Module
from .product import Cuts
from .tree import add_tree

# Registers by depth; the accumulator is the last stage of each. "sum": behind the tree.
DOT_CUTS = {1: (), 2: ("sum",), 3: ("term", "sum"), 4: ("product", "term", "sum")}


@dataclass(frozen=True)
class Dot:
    """acc = (first ? 0 : acc) + the sum over lanes of w * a.

    first_i starts a new sum with its beat, so sums follow one another without a gap. rst_ni (low) only takes back
    beats that are on their way; a sum is valid once a first_i beat has come through.

    Args:
        pair: formats and circuit.
        lanes: products a clock.
        k: the most products in one sum.
        depth: clocks from a beat's codes to acc_o, 1..4.
    """

    pair: Pair
    lanes: int
    k: int = 1024
    depth: int = 1

    def __post_init__(self):
        if self.depth not in DOT_CUTS:
            raise ValueError(f"depth={self.depth}: a Dot has a pipeline depth of 1 to 4")
        if self.lanes < 1:
            raise ValueError(f"lanes={self.lanes}: a Dot has at least one lane")

    @property
    def name(self) -> str:
        return f"dot{self.lanes}_{self.pair.weight.name}_{self.pair.activation.name}".replace("-", "m")

    @cached_property
    def accumulator_bits(self) -> int:
        return self.pair.accumulator_bits(self.k)

    @cached_property
    def _lane(self) -> tuple[Module, Term]:
        """The multiplier of one lane as a module of its own, and its term."""
        pair, cuts = self.pair, DOT_CUTS[self.depth]
        m = Module(
            f"{self.name}_lane", [f"{self.name}_lane: one product as complement and carry.", *pair.describe(self.k)]
        )
        if "product" in cuts or "term" in cuts:
            m.input("clk_i")
        m.input("w_i", pair.w.bits)
        m.input("a_i", pair.a.bits)
        term = pair.build(m, "w_i", "a_i", Cuts(m, cuts))
        m.output("x_o", term.x.bits)
        m.assign("x_o", term.x.name)
        if term.carry:
            m.output("carry_o")
            m.assign("carry_o", term.carry)
        return m, term

    def parts(self) -> list[Module]:
        """The modules that the top instantiates."""
        return [self._lane[0]]

    def module(self, name: str | None = None) -> Module:
        pair, bits, cuts = self.pair, self.accumulator_bits, DOT_CUTS[self.depth]
        m = Module(
            name or self.name,
            [
                f"{self.name}: acc_o = sum over beats and {self.lanes} lanes of w * a, exact, latency {self.depth}.",
                *pair.describe(self.k),
                f"Lane i reads w_i[{pair.w.bits}*i +: {pair.w.bits}] and a_i[{pair.a.bits}*i +: {pair.a.bits}].",
                "A beat with first_i starts a new sum. rst_ni low drops the beats that are on their way.",
            ],
        )
        for port in ("clk_i", "rst_ni", "first_i", "valid_i"):
            m.input(port)
        m.input("w_i", pair.w.bits * self.lanes)
        m.input("a_i", pair.a.bits * self.lanes)
        m.output("acc_o", bits)
        m.output("valid_o")
        m.note("Products.")
        total = add_tree(m, [self._instance(m, i) for i in range(self.lanes)])
        if "sum" in cuts:
            real = [(total.x.name, total.x.bits)] + ([(total.carry, 1)] if total.carry else [])
            names = m.register(real)
            total = Term(total.x.renamed(names[0]), names[1] if total.carry else None)
        m.note("Control, delayed as the products are.")
        first, valid = "first_i", "valid_i"
        for stage in range(1, self.depth):
            m.wire(f"first_{stage}", 1)
            m.wire(f"valid_{stage}", 1)
            m.clocked([f"first_{stage} <= {first};", f"valid_{stage} <= {valid} & rst_ni;"])
            first, valid = f"first_{stage}", f"valid_{stage}"
        m.note("Exact accumulation.")
        m.wire("acc_q", bits)
        m.wire("valid_q", 1)
        m.wire("kept", bits, f"{first} ? {bits}'d0 : acc_q")
        # The sum comes first: the carry chain takes its bits as they are, and gating acc_q joins its LUTs.
        after = add(m, "acc_next", total.x.to(bits), "kept", total.carry, bits)
        m.clocked([f"valid_q <= {valid} & rst_ni;", f"if ({valid}) acc_q <= {after};"])
        m.assign("acc_o", "acc_q")
        m.assign("valid_o", "valid_q")
        return m

    def _instance(self, m: Module, lane: int) -> Term:
        module, term = self._lane
        w, a = self.pair.w.bits, self.pair.a.bits
        x = m.wire(f"x{lane}", term.x.bits)
        pins = {"clk_i": "clk_i"} if module.ports[0].name == "clk_i" else {}
        pins |= {"w_i": f"w_i[{w * lane + w - 1}:{w * lane}]", "a_i": f"a_i[{a * lane + a - 1}:{a * lane}]", "x_o": x}
        carry = None
        if term.carry:
            carry = pins["carry_o"] = m.wire(f"carry{lane}", 1)
        m.instance(module.name, f"u_lane{lane}", pins)
        return Term(term.x.renamed(x), carry)
