"""Gemm: an output-stationary systolic array. Operands are decoded once, at the edges, and travel decoded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from .arithmetic import add
from .decoded import Decoded
from .mac import Pair
from .module import Module
from .operand import Operand
from .product import Cuts, Factors
from .variants import VARIANTS

GEMM_CUTS = {1: (), 2: ("product",), 3: ("product", "term")}


@dataclass(frozen=True)
class Gemm:
    """C[i, j] = sum over beats k of A[i, k] * W[j, k], for a tile of `rows` x `cols`, exact.

    A beat brings A[:, k] and W[:, k] together; the array delays row i by i clocks and column j by j. last_i ends a
    tile, and the next beat starts a new one from zero. Results leave to the north: column j gives C[0, j], C[1, j], ...
    with a clock between them, so a tile has at least 2 * rows - 1 beats. C[i, j] comes depth + 2 * i + j clocks
    after the beat with last_i.

    Args:
        pair: formats and circuit. k: the most beats in a tile. depth: pipeline depth of an element, 1..3.
    """

    pair: Pair
    rows: int
    cols: int
    k: int = 1024
    depth: int = 1

    def __post_init__(self):
        if self.rows < 1 or self.cols < 1:
            raise ValueError(f"rows={self.rows}, cols={self.cols}: a Gemm has at least one of each")
        if self.depth not in GEMM_CUTS:
            raise ValueError(f"depth={self.depth}: a Gemm's multiply-accumulators have a pipeline depth of 1 to 3")
        if self.k < 2 * self.rows - 1:
            raise ValueError(f"k={self.k}: results of {self.rows} rows need {2 * self.rows - 1} beats to leave")

    @property
    def name(self) -> str:
        return f"gemm{self.rows}x{self.cols}_{self.pair.weight.name}_{self.pair.activation.name}".replace("-", "m")

    @cached_property
    def accumulator_bits(self) -> int:
        return self.pair.accumulator_bits(self.k)

    @cached_property
    def _operands(self) -> tuple[Operand, Operand]:
        """(w, a) as the array sees them: decoded, unless the circuit is a table of codes."""
        pair = self.pair
        if pair.circuit == "rom":
            return pair.w, pair.a
        return tuple(Decoded(x.letter, x.format, x.zero_specials) for x in (pair.w, pair.a))

    def _bus_bits(self, x: Operand) -> int:
        return x.bus_bits if isinstance(x, Decoded) else x.bits

    def parts(self) -> list[Module]:
        """The element of the array, and the decoders at its edges."""
        decoders = [self._decoder(x) for x in self._operands if isinstance(x, Decoded)]
        return [*decoders, self._element()]

    def _decoder(self, x: Decoded) -> Module:
        m = Module(f"{self.name}_decode_{x.letter}", [f"{x.format} code to sign, effective exponent, significand."])
        m.input("code_i", x.bits)
        m.output("bus_o", x.bus_bits)
        m.assign("bus_o", x.decode(m, "code_i"))
        return m

    def _element(self) -> Module:
        bits, (w, a) = self.accumulator_bits, self._operands
        m = Module(f"{self.name}_element", [f"One output of {self.name}.", *self.pair.describe(self.k)])
        for name in ("clk_i", "rst_ni", "valid_i", "last_i"):
            m.input(name)
        m.input("w_i", self._bus_bits(w))
        m.input("a_i", self._bus_bits(a))
        m.input("south_i", bits)
        m.input("south_valid_i")
        for name, width in (("valid_o", 1), ("last_o", 1), ("w_o", self._bus_bits(w)), ("a_o", self._bus_bits(a))):
            m.output(name, width)
        m.output("north_o", bits)
        m.output("north_valid_o")
        m.note("To the neighbours in the east and in the south.")
        m.clocked(["valid_o <= valid_i & rst_ni;", "last_o <= last_i;", "w_o <= w_i;", "a_o <= a_i;"])
        m.note("Product.")
        term = VARIANTS[self.pair.circuit].build(m, Factors(w, a, "w_i", "a_i", Cuts(m, GEMM_CUTS[self.depth])))
        valid, last = "valid_i", "last_i"
        for stage in range(1, self.depth):
            m.wire(f"valid_{stage}", 1)
            m.wire(f"last_{stage}", 1)
            m.clocked([f"valid_{stage} <= {valid} & rst_ni;", f"last_{stage} <= {last};"])
            valid, last = f"valid_{stage}", f"last_{stage}"
        m.note("The last beat hands the sum over and leaves zero behind.")
        m.wire("acc_q", bits)
        m.wire("done", 1, f"{valid} & {last}")
        total = add(m, "acc_next", "acc_q", term.x.to(bits), term.carry, bits)
        m.clocked(
            [
                f"if (done | ~rst_ni) acc_q <= {bits}'d0;",
                f"else if ({valid}) acc_q <= {total};",
                f"north_o <= done ? {total} : south_i;",
                "north_valid_o <= (done | south_valid_i) & rst_ni;",
            ]
        )
        return m

    def module(self, name: str | None = None) -> Module:
        pair, bits, (w, a) = self.pair, self.accumulator_bits, self._operands
        m = Module(
            name or self.name,
            [
                f"{self.name}: C[i, j] = sum over beats of A[i] * W[j], {self.rows} x {self.cols}, exact.",
                *pair.describe(self.k),
                f"A[i] is a_i[{pair.a.bits}*i +: {pair.a.bits}], W[j] is w_i[{pair.w.bits}*j +: {pair.w.bits}].",
                "The beat with last_i ends a tile.",
                "Column j gives C[0, j], C[1, j], ... on c_o while c_valid_o[j] is high.",
                f"C[i, j] comes {self.depth} + 2*i + j clocks after the last beat.",
                f"A tile has at least {2 * self.rows - 1} beats.",
            ],
        )
        for port in ("clk_i", "rst_ni", "valid_i", "last_i"):
            m.input(port)
        m.input("w_i", pair.w.bits * self.cols)
        m.input("a_i", pair.a.bits * self.rows)
        m.output("c_o", bits * self.cols)
        m.output("c_valid_o", self.cols)
        for i in range(self.rows):
            m.note(f"Row {i}: delayed by {i}.")
            code = self._delayed(m, f"a{i}", _part("a_i", pair.a.bits, i, self.rows), pair.a.bits, i)
            self._edge(m, a, code, f"a_{i}_0")
            for control in ("valid", "last"):
                delayed = self._delayed(m, f"{control}{i}", f"{control}_i", 1, i)
                m.wire(f"{control}_{i}_0", 1, delayed)
        for j in range(self.cols):
            m.note(f"Column {j}: delayed by {j}.")
            code = self._delayed(m, f"w{j}", _part("w_i", pair.w.bits, j, self.cols), pair.w.bits, j)
            self._edge(m, w, code, f"w_0_{j}")
            m.wire(f"c_{self.rows}_{j}", bits, f"{bits}'d0")
            m.wire(f"cv_{self.rows}_{j}", 1, "1'b0")
        m.note("The array.")
        for i in range(self.rows):
            for j in range(self.cols):
                self._place(m, i, j)
        columns = range(self.cols - 1, -1, -1)
        m.assign("c_o", f"{{{', '.join(f'c_0_{j}' for j in columns)}}}")
        m.assign("c_valid_o", f"{{{', '.join(f'cv_0_{j}' for j in columns)}}}")
        return m

    def _place(self, m: Module, i: int, j: int) -> None:
        bits, (w, a) = self.accumulator_bits, self._operands
        for name, width in ((f"a_{i}_{j + 1}", self._bus_bits(a)), (f"w_{i + 1}_{j}", self._bus_bits(w))):
            m.wire(name, width)
        for name, width in (
            (f"valid_{i}_{j + 1}", 1),
            (f"last_{i}_{j + 1}", 1),
            (f"c_{i}_{j}", bits),
            (f"cv_{i}_{j}", 1),
        ):
            m.wire(name, width)
        pins = {"clk_i": "clk_i", "rst_ni": "rst_ni", "w_i": f"w_{i}_{j}", "a_i": f"a_{i}_{j}"}
        pins |= {"valid_i": f"valid_{i}_{j}", "last_i": f"last_{i}_{j}"}
        pins |= {"south_i": f"c_{i + 1}_{j}", "south_valid_i": f"cv_{i + 1}_{j}"}
        pins |= {"valid_o": f"valid_{i}_{j + 1}", "last_o": f"last_{i}_{j + 1}"}
        pins |= {"w_o": f"w_{i + 1}_{j}", "a_o": f"a_{i}_{j + 1}"}
        pins |= {"north_o": f"c_{i}_{j}", "north_valid_o": f"cv_{i}_{j}"}
        m.instance(f"{self.name}_element", f"u_{i}_{j}", pins)

    def _edge(self, m: Module, x: Operand, code: str, bus: str) -> None:
        """The decoder between a delayed code and the array."""
        if not isinstance(x, Decoded):
            m.wire(bus, x.bits, code)
            return
        m.wire(bus, x.bus_bits)
        m.instance(f"{self.name}_decode_{x.letter}", f"u_decode_{bus}", {"code_i": code, "bus_o": bus})

    @staticmethod
    def _delayed(m: Module, name: str, signal: str, bits: int, clocks: int) -> str:
        for n in range(clocks):
            m.wire(f"{name}_d{n}", bits)
            reset = " & rst_ni" if name.startswith("valid") else ""
            m.clocked([f"{name}_d{n} <= {signal}{reset};"])
            signal = f"{name}_d{n}"
        return signal


def _part(name: str, bits: int, index: int, count: int) -> str:
    if bits * count == 1:
        return name
    return f"{name}[{bits * index + bits - 1}:{bits * index}]" if bits > 1 else f"{name}[{index}]"
