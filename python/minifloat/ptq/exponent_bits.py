"""How many of a float's bits are exponent: chosen for each layer by error, or learned together with the scales.

Source: Kuzmin et al., "FP8 Quantization: The Power of the Exponent", 2022 (arXiv 2208.09225). No exponent bits means an
integer.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch

from ..formats import Format, QuantSpec
from .choice import Choice, choose, usual_float, with_format
from .choosing import float_grams, set_best
from .errors import error, times_gram
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .scales import ScaleRule, Scales

NAMED = {(8, 4): "e4m3fn", (8, 5): "e5m2"}  # what hardware has at 8 bits, special values included


@register
@dataclass(frozen=True)
class ExponentBits(Step):
    """Give each layer's weight, and its activation if that is quantized, the exponent bits with the least output error.

    The error is that of rounding to nearest with the layer's scale rule. What quantizes comes after this step, unless
    the exponent bits are learned.

    Attributes:
        learn: learn the exponent bits of weights together with their scales, by gradient, and quantize with them.
        steps: gradient steps, if so.
    """

    name = "exponent_bits"

    learn: bool = False
    steps: int = 200

    def apply(self, run: Run) -> None:
        if not self.learn:
            set_best(run, self, self._pairs)
            return
        run.float_only(self)
        todo = [layer for layer in run.layers if not run.restored(layer)]
        grams = float_grams(run, todo) if todo else {}
        for layer in run.track(todo, self.name):
            found = learn_exponent_bits(layer.matrix, layer.weight, grams[layer], layer.rule, self.steps)
            layer.weight = found.spec
            run.set_weight(layer, found.q)

    @staticmethod
    def _pairs(layer: Layer):
        return product(split(layer.weight), split(layer.activation) if layer.activation else [None])


def split(spec: QuantSpec) -> list[QuantSpec]:
    """spec with every split of its bits."""
    return [with_format(spec, f) for f in splits(spec.format.bits)]


def splits(bits: int) -> list[Format]:
    """Every signed format of 3 to 8 bits, by exponent bits: int, e1m.., e2m.., up to no mantissa.

    Raises:
        ValueError: bits is out of range.
    """
    if not 3 <= bits <= 8:
        raise ValueError(f"exponent bits are chosen for formats of 3 to 8 bits, got {bits}")
    names = [NAMED.get((bits, e), f"e{e}m{bits - 1 - e}") for e in range(1, bits)]
    return [Format.parse(name) for name in [f"int{bits}", *names]]


def choose_exponent_bits(
    w: torch.Tensor, spec: str | QuantSpec, gram: torch.Tensor | None = None, rule: ScaleRule | None = None
) -> Choice:
    """w (N, K) in the split of spec's width with the least error, each split with its own best scales.

    Args: as choice.choose. Raises:
        ValueError: spec does not have 3 to 8 bits.
    """
    return choose(w, split(QuantSpec.parse(spec)), gram, rule)


def learn_exponent_bits(
    w: torch.Tensor,
    spec: str | QuantSpec,
    gram: torch.Tensor | None = None,
    rule: ScaleRule | None = None,
    steps: int = 200,
    rate: float = 0.02,
) -> Choice:
    """The same by gradient: mantissa bits of the layer and the largest value of each row (or of the tensor) together.

    The rounding x -> s * round(x / s) has gradient 1 to x and, through the step s, to the mantissa bits m (rounded in
    the forward pass) and to the largest value c, as in the source. Starts at spec's format with the scales of `rule`.
    The best point of the way is what comes back, so its error is never above that of spec itself.

    Args:
        spec: with scales per tensor or row, float32 or bfloat16, no zero point. The way starts at the usual
            float of the width if spec is an integer, where the gradient only ever asks for more mantissa bits.
        steps, rate: of Adam.
    Raises:
        ValueError: spec is none of these.
    """
    spec = QuantSpec.parse(spec)
    if spec.granularity == "group" or spec.scale_format not in ("float32", "bfloat16") or spec.zero_point:
        raise ValueError(f"exponent bits are learned with f32 or bf16 scales per tensor or row, without zp: not {spec}")
    formats = splits(spec.format.bits)
    rule = rule or ScaleRule("mse")
    own = choose(w, [spec], gram, rule)
    best, errors = (own.q, own.error), dict(own.errors)
    floats = spec.format in formats[1:]
    first = formats.index(spec.format if floats else usual_float(spec.format.bits))
    scales = rule.find(w, with_format(spec, formats[first]))
    m = torch.tensor(float(spec.format.bits - 1 - first), requires_grad=True)
    log_c = (scales.step * formats[first].scale_max).log2().requires_grad_()
    adam = torch.optim.Adam([m, log_c], lr=rate)
    for step in range(steps + 1):  # of the last, only the result counts
        f = formats[spec.format.bits - 1 - int(m.detach().round().clamp(0, spec.format.bits - 1))]
        q = _rounded(w, with_format(spec, f), log_c.detach())
        found = error(w, q, gram)
        errors[str(q.spec)] = min(found, errors.get(str(q.spec), found))
        if found < best[1]:
            best = q, found
        if step == steps:
            break
        adam.zero_grad()
        with torch.enable_grad():
            delta = _soft(w, m, log_c, spec.format.bits) - w
            ((delta if gram is None else times_gram(delta, gram)) * delta).sum().backward()
        adam.step()
        m.data.clamp_(0, spec.format.bits - 1)
    return Choice(best[0], best[1], errors)


def _rounded(w: torch.Tensor, spec: QuantSpec, log_c: torch.Tensor):
    """w in spec with scales that map c to the largest value."""
    values = torch.exp2(log_c) / spec.format.scale_max
    if spec.scale_format == "bfloat16":
        values = values.bfloat16().float()
    scales = Scales(spec, values.clamp_min(2.0**-126))
    return scales.qtensor(scales.codes(w))


class _Round(torch.autograd.Function):
    """Round to nearest even in the forward pass, the identity in the backward pass."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, grad):
        return grad


class _Floor(_Round):
    """Rounding down, likewise. So the step of a normal number does not depend on the bias: floor(log2 w + b) - b."""

    @staticmethod
    def forward(ctx, x):
        return x.floor()


def _soft(w: torch.Tensor, m: torch.Tensor, log_c: torch.Tensor, bits: int) -> torch.Tensor:
    """w rounded, with gradients to m and log_c."""
    m = _Round.apply(m)
    bias = torch.exp2(bits - 1 - m) - log_c + torch.log2(2 - torch.exp2(-m)) - 1
    c = torch.exp2(log_c)
    x = torch.minimum(torch.maximum(w, -c), c)
    exponent = _Floor.apply(w.abs().clamp_min(1e-38).log2() + bias).clamp_min(1)  # 1: subnormal
    s = torch.exp2(exponent - bias - m)
    return s * _Round.apply(x / s)
