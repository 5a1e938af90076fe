"""Layer: a quantized linear layer with its packed weights in memory, AXI-Stream in and out."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..emulator.integers import exact_dot
from ..emulator.quantize import Quantized
from ..formats import Format
from .arithmetic import Integer, width
from .assets import asset
from .dot import Dot
from .mac import MAX_ACCUMULATOR_BITS, Pair
from .module import Module, span
from .requantize import Requantize
from .requantizer import LATENCY, requantizer

FIFO_BITS = 4
SHELL = "minifloat_layer_shell.sv"


@dataclass(frozen=True)
class Layer:
    """y = x @ w.T (+ bias) as exact integers, or requantized to a format.

    Args:
        name: of the top module.
        codes: weight codes, (N, K) uint8; every one a number.
        pair: formats and circuit. lanes: products a clock, dividing K. depth: pipeline depth of the dot product, 1..4.
        bias: (N,) integers in accumulator units, or None.
        requantize: the output stage, or None for raw sums.
    """

    name: str
    codes: np.ndarray = field(compare=False)
    pair: Pair
    lanes: int
    depth: int = 3
    bias: np.ndarray | None = field(default=None, compare=False)
    requantize: Requantize | None = None

    def __post_init__(self):
        if self.codes.ndim != 2 or 0 in self.codes.shape:
            raise ValueError(f"a Layer needs weight codes of shape (N, K) with N, K >= 1, got {self.codes.shape}")
        if self.k % self.lanes:
            near = [p for p in range(1, self.k + 1) if self.k % p == 0]
            best = min(near, key=lambda p: (abs(p - self.lanes), p))
            raise ValueError(f"lanes={self.lanes} does not divide K={self.k}: {best} does")
        if not self.pair.weight.is_number[self.codes].all():
            raise ValueError(f"the weights hold codes that are not numbers in {self.pair.weight}")
        if self.bias is not None and len(self.bias) != self.n:
            raise ValueError(f"{len(self.bias)} biases for {self.n} outputs")
        if self.requantize and len(self.requantize.multipliers) not in (1, self.n):
            raise ValueError(f"{len(self.requantize.multipliers)} multipliers for {self.n} outputs: give 1 or {self.n}")

    @staticmethod
    def from_quantized(
        q: Quantized, activation: str | Format, lanes: int = 16, name: str = "layer", **options
    ) -> Layer:
        """The Layer of a quantized weight whose scales are one per row or tensor.

        Raises:
            ValueError: scales per group, or zero points: they do not leave one integer sum per output.
        """
        if q.spec.granularity == "group" or q.zero_points is not None:
            what = "zero points" if q.zero_points is not None else "a scale per group"
            spec = f"{q.spec.format}-row"
            raise ValueError(f"{q.spec} has {what}, and a Layer sums each row as one integer: quantize to {spec!r}")
        return Layer(name, q.codes, Pair(q.spec.format, Format.parse(activation)), lanes, **options)

    @property
    def n(self) -> int:
        return self.codes.shape[0]

    @property
    def k(self) -> int:
        return self.codes.shape[1]

    @property
    def beats(self) -> int:
        return self.k // self.lanes

    @property
    def clocks_a_vector(self) -> int:
        """Clocks from one vector's first beat to the next one's, when the receiver is ready."""
        return self.beats * (self.n + 1)

    @cached_property
    def dot(self) -> Dot:
        return Dot(self.pair, self.lanes, self.k, self.depth)

    @cached_property
    def sum_range(self) -> tuple[int, int]:
        """Smallest and largest sum the actual weights and biases can give."""
        low, high = self.pair.a.range
        grid = self.pair.weight.grid[self.codes].astype(object)
        positive, negative = np.where(grid > 0, grid, 0).sum(axis=1), np.where(grid < 0, grid, 0).sum(axis=1)
        bias = np.zeros(self.n, dtype=object) if self.bias is None else np.asarray(self.bias).astype(object)
        lows, highs = positive * low + negative * high + bias, positive * high + negative * low + bias
        # The sum without its bias must fit too: it passes through the same width.
        return int(min(0, lows.min(), (lows - bias).min())), int(max(0, highs.max(), (highs - bias).max()))

    @cached_property
    def sum_bits(self) -> int:
        bits = max(width(*self.sum_range), 2)
        if bits > MAX_ACCUMULATOR_BITS:
            raise ValueError(f"sums of {bits} bits are beyond the limit of {MAX_ACCUMULATOR_BITS}: use smaller biases")
        return bits

    @property
    def out_bits(self) -> int:
        """Bits of one result, before tdata's padding to whole bytes."""
        return self.requantize.format.bits if self.requantize else self.sum_bits

    @property
    def in_width(self) -> int:
        """Width of the activations' tdata."""
        return -(-self.lanes * self.pair.a.bits // 8) * 8

    @property
    def out_width(self) -> int:
        return -(-self.out_bits // 8) * 8

    def reference(self, activations: np.ndarray) -> np.ndarray:
        """What the hardware gives for activation codes (M, K): exact sums, or codes of the output format."""
        sums = exact_dot(self.pair.activation.grid[activations], self.pair.weight.grid[self.codes])
        sums = sums.astype(np.int64) if sums.dtype != object else sums
        if self.bias is not None:
            sums = sums + np.asarray(self.bias)
        return self.requantize(sums) if self.requantize else sums

    def memories(self) -> dict[str, list[int]]:
        """File name -> words of each $readmemh file: the packed weights, a word a beat, and what belongs to a row."""
        bits = self.pair.w.bits
        blocks = self.codes.reshape(self.n * self.beats, self.lanes).astype(object)
        out = {f"{self.name}_weights.hex": [int(v) for v in (blocks << (bits * np.arange(self.lanes))).sum(axis=1)]}
        if self.bias is not None:
            out[f"{self.name}_bias.hex"] = [int(b) & ((1 << self.sum_bits) - 1) for b in self.bias]
        if self.requantize and len(set(self.requantize.multipliers)) > 1:
            out[f"{self.name}_multipliers.hex"] = list(self.requantize.multipliers)
        return out

    def parts(self) -> list[Module]:
        return [*self.dot.parts(), self.dot.module(f"{self.name}_dot")]

    def shell(self) -> str:
        """The hand-written stream shell."""
        return asset(SHELL).read_text()

    def module(self, name: str | None = None) -> Module:
        m = Module(name or self.name, self._header())
        for port in ("clk_i", "rst_ni"):
            m.input(port)
        m.input("s_tdata_i", self.in_width)
        m.input("s_tvalid_i")
        m.input("s_tlast_i")
        m.output("s_tready_o")
        m.output("m_tdata_o", self.out_width)
        m.output("m_tvalid_o")
        m.output("m_tlast_o")
        m.input("m_tready_i")
        m.output("error_o")
        self._shell_instance(m)
        self._dot_instance(m)
        self._output_stage(m)
        return m

    def _header(self) -> list[str]:
        low, high = self.sum_range
        kind = f"a code of {self.requantize.format}" if self.requantize else "an integer, sign-extended"
        lines = [
            f"{self.name}: y = x @ w.T, N = {self.n} outputs of K = {self.k} inputs, {self.lanes} products a clock.",
            *self.pair.describe(self.k),
            f"With these weights{' and biases' if self.bias is not None else ''} a sum lies in [{low}, {high}]:",
            f"{self.sum_bits} bits. No sum can overflow.",
            f"In: {self.beats} beats of {self.lanes} activation codes, the first lowest; tlast on the last.",
            f"Out: {self.n} beats of {self.out_width} bits, each {kind}; tlast on the last.",
            f"One vector takes {self.clocks_a_vector} clocks.",
        ]
        if self.requantize:
            lines.append(f"Output code = sum * multiplier / 2**{self.requantize.shift}, nearest even, saturated.")
        return lines

    def _shell_instance(self, m: Module) -> None:
        words = self.n * self.beats
        sizes = {
            "ROWS": self.n,
            "BEATS": self.beats,
            "IN_W": self.in_width,
            "OUT_W": self.out_width,
            "ROW_BITS": width(0, self.n - 1),
            "BEAT_BITS": width(0, self.beats - 1),
            "ADDR_BITS": width(0, words - 1),
            "FIFO_BITS": FIFO_BITS,
        }
        m.note("Streams and addresses.")
        m.wire("weight_addr", sizes["ADDR_BITS"])
        m.wire("data", self.in_width)
        for name in ("valid", "first", "last", "result_valid"):
            m.wire(name, 1)
        m.wire("result", self.out_width)
        ports = ["clk_i", "rst_ni", "s_tdata_i", "s_tvalid_i", "s_tlast_i", "s_tready_o"]
        ports += ["m_tdata_o", "m_tvalid_o", "m_tlast_o", "m_tready_i", "error_o"]
        pins = {p: p for p in ports} | {"weight_addr_o": "weight_addr", "data_o": "data", "valid_o": "valid"}
        pins |= {"first_o": "first", "last_o": "last", "result_valid_i": "result_valid", "result_i": "result"}
        header = ", ".join(f".{key}({value})" for key, value in sizes.items())
        m.instance("minifloat_layer_shell #(" + header + ")", "u_shell", pins)

    def _memory(self, m: Module, name: str, bits: int, words: int, address: str) -> None:
        """A read-only memory with one clock of latency."""
        m.body.append(f"logic {span(bits)}{name}_rom [0:{words - 1}];")
        m.body.append(f'initial $readmemh("{self.name}_{name}.hex", {name}_rom);')
        m.wire(f"{name}_q", bits)
        m.clocked([f"{name}_q <= {name}_rom[{address}];"])

    def _dot_instance(self, m: Module) -> None:
        m.note("Weights, packed: lane 0 in the low bits.")
        word = self.lanes * self.pair.w.bits
        self._memory(m, "weights", word, self.n * self.beats, "weight_addr")
        m.wire("acc", self.dot.accumulator_bits)
        m.wire("acc_valid", 1)
        pins = {"clk_i": "clk_i", "rst_ni": "rst_ni", "first_i": "first", "valid_i": "valid", "w_i": "weights_q"}
        codes = self.lanes * self.pair.a.bits
        pins |= {"a_i": f"data[{codes - 1}:0]" if codes > 1 else "data[0]", "acc_o": "acc", "valid_o": "acc_valid"}
        m.instance(f"{self.name}_dot", "u_dot", pins)
        m.note("A row is complete when the beat marked last comes out.")
        name = "last"
        for stage in range(self.depth):
            m.wire(f"last_{stage + 1}", 1)
            m.clocked([f"last_{stage + 1} <= {name};"])
            name = f"last_{stage + 1}"
        m.wire("row_done", 1, f"acc_valid & {name}")

    def _output_stage(self, m: Module) -> None:
        row_bits, multipliers = width(0, self.n - 1), self.requantize.multipliers if self.requantize else ()
        per_row = len(set(multipliers)) > 1
        if self.bias is not None or per_row:
            m.note("The row that is complete; its bias and multiplier are read one clock ahead.")
            m.wire("row_q", row_bits)
            m.wire("row_next", row_bits, f"row_q == {row_bits}'d{self.n - 1} ? {row_bits}'d0 : row_q + {row_bits}'d1")
            m.wire("row_ahead", row_bits, "row_done ? row_next : row_q")
            m.clocked([f"row_q <= rst_ni ? row_ahead : {row_bits}'d0;"])
        total = Integer("acc", self.dot.accumulator_bits, -1, 0).to(self.sum_bits)
        m.wire("total", self.sum_bits)
        if self.bias is not None:
            self._memory(m, "bias", self.sum_bits, self.n, f"rst_ni ? row_ahead : {row_bits}'d0")
            total = f"{total} + bias_q"
        m.assign("total", total)
        if not self.requantize:
            result = Integer("total", self.sum_bits, *self.sum_range).to(self.out_width)
            m.assign("result", result)
            m.assign("result_valid", "row_done")
            return
        r = self.requantize
        multiplier = f"{r.multiplier_bits}'d{multipliers[0]}"
        if per_row:
            self._memory(m, "multipliers", r.multiplier_bits, self.n, f"rst_ni ? row_ahead : {row_bits}'d0")
            multiplier = "multipliers_q"
        m.wire("multiplier", r.multiplier_bits, multiplier)
        # The sum is given the range of its width, so that the requantizer sees the wire it is on.
        low = -(1 << (self.sum_bits - 1)) if self.sum_range[0] < 0 else 0
        high = (1 << (self.sum_bits - (low < 0))) - 1
        code = requantizer(m, "total", (low, high), "multiplier", r)
        name = "row_done & rst_ni"
        for stage in range(LATENCY):
            m.wire(f"done_{stage + 1}", 1)
            m.clocked([f"done_{stage + 1} <= {name};"])
            name = f"done_{stage + 1} & rst_ni"
        m.assign("result_valid", f"done_{LATENCY}")
        pad = self.out_width - r.format.bits
        m.assign("result", f"{{{pad}'b0, {code}}}" if pad else code)
