"""Are the emulator, a backend of mf.linear and the simulated hardware equal, bit for bit, on a real layer?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import emulator
from ..emulator.integers import to_float32
from ..formats import QuantSpec
from .layer import Layer
from .layer_simulation import LayerSimulation
from .sample import Sample


@dataclass(frozen=True)
class Comparison:
    """One source compared with the emulator. first: index, emulator's value, the other's; None if all are equal."""

    name: str
    outputs: int
    differences: int
    first: tuple[tuple[int, ...], object, object] | None

    def __str__(self) -> str:
        text = f"{self.name}: {self.outputs} outputs, {self.differences} differences"
        if self.first:
            where, want, got = self.first
            text += f"; the first at {where}: emulator {want!r}, {self.name} {got!r}"
        return text


def compare(name: str, want: np.ndarray, got: np.ndarray) -> Comparison:
    """Compare bits: float32 as their patterns (so -0.0 and 0.0 differ), integers as they are."""
    if want.shape != got.shape:
        raise ValueError(f"{name} gave shape {got.shape} where the emulator gave {want.shape}")
    left, right = (a.view(np.uint32) if a.dtype == np.float32 else a for a in (want, got))
    wrong = np.argwhere(left != right)
    first = None
    if len(wrong):
        where = tuple(int(i) for i in wrong[0])
        first = (where, *(v.item() if isinstance(v, np.generic) else v for v in (want[where], got[where])))
    return Comparison(name, want.size, len(wrong), first)


def finish(sums: np.ndarray, unit: int, weight_scales: np.ndarray, activation_scales: np.ndarray, bias) -> np.ndarray:
    """The float steps that follow the exact sums (M, N), as the host takes them: docs/numerics.md, one group a row.

    Args:
        weight_scales: (N, 1) or (1, 1). activation_scales: (M, 1) or (1, 1). bias: (N,) float32 or None.
    """
    fits = sums.dtype != object and np.abs(sums).max(initial=0) < 2**53
    value = to_float32(sums.astype(np.float64) if fits else sums.astype(object), unit)
    acc = np.zeros_like(value) + value * weight_scales.reshape(1, -1)
    acc = acc * activation_scales
    return acc if bias is None else acc + bias


def crosscheck(
    sample: Sample, weight: str, activation: str, lanes: int, depth: int, gaps: tuple[float, float] = (0.1, 0.1)
) -> list[Comparison]:
    """Quantize the sample's layer and compare the emulator with the CPU kernel and with the simulated Layer.

    Args:
        weight, activation: specs with one scale per row or tensor.
        gaps: how often the source and the receiver of the hardware's streams pause.
    Raises:
        tools.MissingTool: the simulator is missing.
    """
    import torch

    from .. import functional, qtensor

    x, bias = torch.from_numpy(sample.x), None if sample.bias is None else torch.from_numpy(sample.bias)
    w_spec, a_spec = QuantSpec.parse(weight), QuantSpec.parse(activation)
    q = qtensor.quantize(torch.from_numpy(sample.weight), w_spec)
    want = emulator.linear(x, q, bias, a_spec).numpy()
    out = [compare("CPU kernel", want, functional.linear(x, q, bias, a_spec, backend="cpu").numpy())]

    quantized, a = q.as_quantized(), emulator.quantize(sample.x, a_spec)
    layer = Layer.from_quantized(quantized, a_spec.format, lanes, "crosscheck", depth=depth)
    if a_spec.granularity == "group":
        raise ValueError(
            f"{a_spec} has a scale per group, and a Layer sums each row as one integer: use '-row' or '-tensor'"
        )
    sums, _ = LayerSimulation([layer])(layer.name, a.codes, gaps)
    unit = layer.pair.plan.unit
    got = finish(sums, unit, quantized.scales, a.scales, sample.bias)
    return [*out, compare("RTL simulation", want, got)]


def read_captured(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What a board gave, and what the emulator says: (M, N) each.

    The .npz holds weight_format and activation_format (strings), weight_codes (N, K) uint8, activation_codes (M, K)
    uint8, results (M, N) integers: raw sums in accumulator units; and, if the design has one, bias (N,) integers.
    """
    with np.load(path) as file:
        data = dict(file)
    needed = {"weight_format", "activation_format", "weight_codes", "activation_codes", "results"}
    if missing := needed - set(data):
        raise ValueError(f"{path} lacks {', '.join(sorted(missing))}: a capture holds {', '.join(sorted(needed))}")
    w, a = (QuantSpec.parse(f"{data[f'{side}_format'].item()}-tensor").format for side in ("weight", "activation"))
    want = emulator.integers.exact_dot(a.grid[data["activation_codes"]], w.grid[data["weight_codes"]])
    want = want if want.dtype == object else want.astype(np.int64)
    if "bias" in data:
        want = want + data["bias"]
    return want, data["results"].astype(want.dtype)


def read_captured_hex(path: Path, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """What a board gave to the vectors of an emitted folder's tb/in.hex, one m_tdata word a line, beside tb/out.hex."""
    import json

    report = json.loads((folder / "report.json").read_text())
    mask = (1 << report["tdata_out_bits"]) - 1
    want = [int(line, 16) & mask for line in (folder / "tb" / "out.hex").read_text().split()]
    got = [int(line, 16) & mask for line in path.read_text().split()]
    if len(got) != len(want):
        raise ValueError(f"{path} has {len(got)} words and {folder}/tb/out.hex {len(want)}")
    shape = (-1, report["n"])
    return np.array(want, dtype=object).reshape(shape), np.array(got, dtype=object).reshape(shape)
