"""What a layer costs in each of its candidate formats: bits, bytes, LUTs of hardware, time on this CPU."""

from __future__ import annotations

import time

import torch

from .choosing import Pair, rounded
from .collect import Collector
from .layer import Layer
from .run import Run

COSTS = ("bits", "bytes", "luts", "us")
REPEATS = 5  # timed calls of a layer, of which the fastest counts


class FirstInput(Collector):
    """The layer's input in the first batch, in `value`, and how often the matrix is multiplied by a row, in `count`."""

    def __init__(self):
        self.value: torch.Tensor | None = None
        self.count = 0

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        self.count += layer.rows(x).shape[1]
        if self.value is None:
            self.value = x.detach().clone()


def cost_table(run: Run, pairs: dict[Layer, list[Pair]], name: str) -> dict[Layer, list[float]]:
    """What each candidate of each layer adds to the cost of this name."""
    if name in ("bits", "bytes"):
        unit = 8 / sum(layer.matrix.numel() for layer in pairs) if name == "bits" else 1
        return {layer: [rounded(layer, w).nbytes * unit for w, _ in pairs[layer]] for layer in pairs}
    inputs = {layer: FirstInput() for layer in pairs}
    with run.as_float():
        run.collect(inputs)
    if name == "us":
        return {
            layer: [time_us(made(layer, pair), inputs[layer].value) for pair in pairs[layer]]
            for layer in run.track(pairs, "measuring layers")
        }
    macs = {layer: inputs[layer].count * layer.matrix.numel() for layer in pairs}
    total = sum(macs.values())
    return {layer: [lut(layer, pair) * macs[layer] / total for pair in pairs[layer]] for layer in pairs}


def lut(layer: Layer, pair: Pair) -> int:
    """LUTs of one multiply-accumulate with an exact accumulator, from the shipped table.

    Raises:
        ValueError: the activation is float, or the pair was not measured.
    """
    from ..rtl import costs

    if pair[1] is None:
        raise ValueError(f"a budget in LUTs needs an activation spec, and {layer.name!r} has none")
    w, a = pair[0].format.name, pair[1].format.name
    table = costs.load()["mac"]
    entry = table.get(f"{w} {a}") or table.get(f"{a} {w}")
    if entry is None:
        raise ValueError(
            f"{w} x {a} is not in the shipped cost table: take it out of the formats, or measure it "
            f"with `minifloat rtl cost {w} {a} --measure`"
        )
    return entry["lut"]


def time_us(module: torch.nn.Module, x: torch.Tensor) -> float:
    """CPU time of a call in microseconds: the least of REPEATS, after one that warms up."""
    times = []
    with torch.inference_mode():
        for _ in range(REPEATS + 1):
            start = time.perf_counter()
            module(x)
            times.append(time.perf_counter() - start)
    return min(times[1:]) * 1e6


def made(layer: Layer, pair: Pair):
    """The layer's module in these specs, rounded to nearest."""
    before = layer.activation
    layer.activation = pair[1]
    try:
        return layer.make(rounded(layer, pair[0]))
    finally:
        layer.activation = before
