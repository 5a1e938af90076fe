"""Choosing, for one weight, the spec with the least error; what the methods that pick formats share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from ..formats import Format, QuantSpec
from ..qtensor import QTensor, quantize
from .errors import error
from .scales import ScaleRule

USUAL_FLOAT = {3: "e2m0", 4: "e2m1", 5: "e2m2", 6: "e2m3", 7: "e3m3", 8: "e4m3fn"}


@dataclass(frozen=True)
class Choice:
    """What was chosen for one weight.

    Attributes:
        q: the weight in the chosen spec. error: its error.
        errors: str(spec) -> error of every candidate, in the order in which they were tried.
    """

    q: QTensor
    error: float
    errors: dict[str, float]

    @property
    def spec(self) -> QuantSpec:
        return self.q.spec


def choose(
    w: torch.Tensor,
    specs: Iterable[str | QuantSpec],
    gram: torch.Tensor | None = None,
    rule: ScaleRule | None = None,
) -> Choice:
    """The spec with the least error when w is rounded to nearest; of equals the first.

    Args:
        w: float32 (N, K).
        gram: (K, K) or (R, K, K), as gram_of returns it: the error is that of the outputs. None: of the weights.
        rule: how each candidate's scales are found; None: by least squared error.
    Raises:
        ValueError: there are no candidates.
    """
    best, errors = None, {}
    for spec in map(QuantSpec.parse, specs):
        found = (rule or ScaleRule("mse")).find(w, spec)
        q = found.qtensor(found.codes(w))
        errors[str(spec)] = error(w, q, gram)
        if best is None or errors[str(spec)] < errors[str(best.spec)]:
            best = q
    if best is None:
        raise ValueError("no format to choose from: give at least one")
    return Choice(best, errors[str(best.spec)], errors)


def activation_errors(x: torch.Tensor, specs: Iterable[str | QuantSpec], w: torch.Tensor) -> dict[str, float]:
    """str(spec) -> squared error of the outputs w x if the inputs are quantized and w is not, mean over the rows.

    Args:
        x: float32 (R, M, K), inputs of the R runs of rows of w (N, K).
    """
    w = w.reshape(x.shape[0], -1, x.shape[-1])
    rows = x.reshape(-1, x.shape[-1])
    errors = {}
    for spec in map(QuantSpec.parse, specs):
        delta = (quantize(rows, spec).dequantize() - rows).reshape(x.shape)
        errors[str(spec)] = (delta @ w.mT).double().square().sum().item() / x.shape[1]
    return errors


def usual_float(bits: int, signed: bool = True) -> Format:
    """The float of this width that published work and hardware use first; unsigned ones spend the sign on the mantissa.

    Raises:
        ValueError: there is none.
    """
    if bits not in USUAL_FLOAT:
        raise ValueError(f"floats to choose from have 3 to 8 bits, got {bits}")
    f = Format.parse(USUAL_FLOAT[bits])
    return f if signed else Format.parse(f"ue{f.exponent_bits}m{f.mantissa_bits + 1}")


def with_format(spec: QuantSpec, f: str | Format) -> QuantSpec:
    """spec with another element format; a zero point is kept only by integers."""
    f = Format.parse(f)
    return replace(spec, format=f, zero_point=spec.zero_point and f.kind == "int")
