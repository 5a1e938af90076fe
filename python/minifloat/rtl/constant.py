"""ConstantLayer: a small linear layer with its weights hard-wired as shifts and additions, one vector a clock."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from ..emulator.integers import exact_dot
from ..emulator.quantize import Quantized
from ..formats import Format
from .arithmetic import Integer, width
from .fixed import fixed_decoder
from .mac import MAX_ACCUMULATOR_BITS, Pair
from .module import Module
from .operand import Operand
from .shift_add import Program, share

MAX_WEIGHTS = 4096


@dataclass(frozen=True)
class ConstantLayer:
    """y = x @ w.T (+ bias) as exact integers, all outputs at once, a new vector every clock.

    Args:
        codes: weight codes, (N, K). weight, activation: formats. bias: (N,) integers in accumulator units, or None.
        levels: adders in a row between two registers.
    """

    name: str
    codes: np.ndarray = field(compare=False)
    weight: Format
    activation: Format
    bias: np.ndarray | None = field(default=None, compare=False)
    levels: int = 2

    def __post_init__(self):
        if self.codes.ndim != 2 or 0 in self.codes.shape:
            raise ValueError(
                f"a ConstantLayer needs weight codes of shape (N, K) with N, K >= 1, got {self.codes.shape}"
            )
        if self.codes.size > MAX_WEIGHTS:
            raise ValueError(f"{self.codes.size} hard-wired weights are beyond the limit of {MAX_WEIGHTS}: use a Layer")
        if not self.weight.is_number[self.codes].all():
            raise ValueError(f"the weights hold codes that are not numbers in {self.weight}")
        if self.levels < 1:
            raise ValueError(f"levels={self.levels}: at least one adder fits between two registers")

    @staticmethod
    def from_quantized(
        q: Quantized, activation: str | Format, name: str = "constant_layer", **options
    ) -> ConstantLayer:
        """The layer of a quantized weight with one scale per row or tensor, which stays with the host."""
        if q.spec.granularity == "group" or q.zero_points is not None:
            raise ValueError(
                f"{q.spec}: a ConstantLayer sums each row as one integer: quantize to '{q.spec.format}-row'"
            )
        return ConstantLayer(name, q.codes, q.spec.format, Format.parse(activation), **options)

    @property
    def n(self) -> int:
        return self.codes.shape[0]

    @property
    def k(self) -> int:
        return self.codes.shape[1]

    @property
    def pair(self) -> Pair:
        return Pair(self.weight, self.activation)

    @cached_property
    def program(self) -> Program:
        return share([[int(v) for v in row] for row in self.weight.grid[self.codes]])

    def reference(self, activations: np.ndarray) -> np.ndarray:
        """(M, N) exact sums for activation codes (M, K)."""
        sums = exact_dot(self.activation.grid[activations], self.weight.grid[self.codes]).astype(object)
        return sums if self.bias is None else sums + np.asarray(self.bias).astype(object)

    @cached_property
    def out_range(self) -> tuple[int, int]:
        low, high = Operand("a", self.activation).range
        grid = self.weight.grid[self.codes].astype(object)
        up, down = np.where(grid > 0, grid, 0).sum(axis=1), np.where(grid < 0, grid, 0).sum(axis=1)
        bias = np.zeros(self.n, object) if self.bias is None else np.asarray(self.bias).astype(object)
        return int(min(0, (up * low + down * high + bias).min())), int(max(0, (up * high + down * low + bias).max()))

    @cached_property
    def out_bits(self) -> int:
        """Width of each output, two's complement."""
        low, high = self.out_range
        bits = width(min(low, -1), high)
        if bits > MAX_ACCUMULATOR_BITS:
            raise ValueError(
                f"outputs of {bits} bits are beyond the limit of {MAX_ACCUMULATOR_BITS}: use smaller formats"
            )
        return bits

    @cached_property
    def _built(self) -> tuple[Module, int]:
        m = Module(self.name, [])
        m.input("clk_i")
        m.input("valid_i")
        m.input("x_i", self.k * self.activation.bits)
        m.output("y_o", self.n * self.out_bits)
        m.output("valid_o")
        latency = _Builder(m, self).build()
        low, high = self.out_range
        m.comment = [
            f"{self.name}: y = x @ w.T, N = {self.n} outputs of K = {self.k} inputs, weights hard-wired.",
            f"w: {self.weight}. x: {self.activation}, x[k] at x_i[{self.activation.bits}*k +: {self.activation.bits}].",
            f"y[n] at y_o[{self.out_bits}*n +: {self.out_bits}]: [{low}, {high}] units of 2**{self.pair.plan.unit}.",
            f"{self.program.adders} adders, {len(self.program.nodes)} shared. Latency {latency}, a vector a clock.",
            "Every intermediate has the width that its range needs: nothing can overflow.",
        ]
        return m, latency

    @property
    def latency(self) -> int:
        """Clocks from x_i to y_o."""
        return self._built[1]

    @cached_property
    def decoder(self) -> tuple[Module, Integer]:
        return fixed_decoder(f"{self.name}_decode", self.activation)

    def parts(self) -> list[Module]:
        return [self.decoder[0]]

    def module(self, name: str | None = None) -> Module:
        m = self._built[0]
        return Module(name or m.name, m.comment, m.ports, m.body)


class _Builder:
    """Adds the program to a module. A signal is known at a level; registers stand after every `levels` levels."""

    def __init__(self, m: Module, layer: ConstantLayer):
        self.m, self.layer, self.p = m, layer, layer.program
        self.signals: dict[tuple[int, int], Integer] = {}  # (node, stage) -> signal
        self.level: dict[int, int] = {}
        self.count = 0

    def build(self) -> int:
        m, layer = self.m, self.layer
        bits, (decoder, value) = layer.activation.bits, layer.decoder
        m.note("Inputs as integers.")
        for k in range(layer.k):
            code = m.wire(f"code{k}", bits, f"x_i[{bits * k + bits - 1}:{bits * k}]" if layer.k * bits > 1 else "x_i")
            name = m.wire(f"x{k}", value.bits)
            m.instance(decoder.name, f"u_decode{k}", {"code_i": code, "value_o": name})
            self.signals[k, 0], self.level[k] = value.renamed(name), 0
        m.note("Shared sums.")
        for i, node in enumerate(self.p.nodes):
            terms = [(node.left, node.left_shift, 1), (node.right, node.right_shift, node.sign)]
            self.level[layer.k + i] = self._add(layer.k + i, *terms)
        m.note("Outputs.")
        next_node = layer.k + len(self.p.nodes)
        outs = []
        for row in self.p.rows:
            heap = sorted((self.level[n], n, s, g) for (n, s), g in row.items())
            while len(heap) > 1:
                (_, n1, s1, g1), (_, n2, s2, g2) = heap[:2]
                if g1 < g2:  # a positive term in front
                    n1, s1, g1, n2, s2, g2 = n2, s2, g2, n1, s1, g1
                base = min(s1, s2)
                self.level[next_node] = self._add(next_node, (n1, s1 - base, 1), (n2, s2 - base, g1 * g2))
                heap = sorted([*heap[2:], (self.level[next_node], next_node, base, g1)])
                next_node += 1
            outs.append(heap[0] if heap else None)
        last = max([self._stage(level[0]) for level in outs if level] or [0])
        self._outputs(outs, last)
        return last + 1

    def _stage(self, level: int) -> int:
        return level // self.layer.levels

    def _at(self, node: int, stage: int) -> Integer:
        """The node's signal behind the registers in front of `stage`."""
        if (node, stage) not in self.signals:
            before = self._at(node, stage - 1)
            name = self.m.register([(before.name, before.bits)])[0]
            self.signals[node, stage] = before.renamed(name)
        return self.signals[node, stage]

    def _add(self, node: int, left: tuple[int, int, int], right: tuple[int, int, int]) -> int:
        """node = (left << shift) +- (right << shift); returns its level."""
        level = max(self.level[left[0]], self.level[right[0]]) + 1
        stage = self._stage(level)
        x, y = self._at(left[0], stage), self._at(right[0], stage)
        (x_low, x_high), (y_low, y_high) = ((v.low << s, v.high << s) for v, (_, s, _) in ((x, left), (y, right)))
        low, high = (x_low + y_low, x_high + y_high) if right[2] > 0 else (x_low - y_high, x_high - y_low)
        bits = width(low, high)
        operator = "+" if right[2] > 0 else "-"
        name = self.m.wire(f"n{node}", bits, f"{_shifted(x, left[1], bits)} {operator} {_shifted(y, right[1], bits)}")
        self.signals[node, stage] = Integer(name, bits, low, high)
        return level

    def _outputs(self, outs: list, last: int) -> None:
        m, layer, bits = self.m, self.layer, self.layer.out_bits
        for n, out in enumerate(outs):
            bias = int(layer.bias[n]) if layer.bias is not None else 0
            value = f"{bits}'d0"
            if out:
                _, node, shift, sign = out
                value = ("-" if sign < 0 else "") + _shifted(self._at(node, last), shift, bits)
            if bias or not out:
                value = f"{value} + {bits}'h{bias & ((1 << bits) - 1):x}"
            m.wire(f"y{n}", bits, value)
        names = m.register([(f"y{n}", bits) for n in range(layer.n)])
        m.assign("y_o", f"{{{', '.join(reversed(names))}}}")
        valid = "valid_i"
        for stage in range(last + 1):
            m.wire(f"valid_{stage}", 1)
            m.clocked([f"valid_{stage} <= {valid};"])
            valid = f"valid_{stage}"
        m.assign("valid_o", valid)


def _shifted(x: Integer, shift: int, bits: int) -> str:
    """x << shift, `bits` wide."""
    if not shift:
        return x.to(bits)
    if bits <= shift:
        return f"{bits}'d0"
    return f"{{{x.to(bits - shift)}, {shift}'b0}}"
