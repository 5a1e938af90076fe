"""Mixed precision: a format for each layer, so that the loss is least within a budget of bits, bytes, LUTs or time.

Source: HAWQ-V3 (the integer programme) and HAWQ-V2 (Hessian traces); OHQ (Huang et al., "On-Chip Hardware-Aware
Quantization", 2023) and AMED (Kimhi et al., 2022) for measured time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ..formats import QuantSpec
from .budget import solve
from .candidate_costs import COSTS, cost_table, made
from .choice import with_format
from .choosing import Pair, Rows, float_grams, pair_errors, rounded
from .errors import times_gram
from .layer import Layer
from .recipe import Step, register
from .run import Run
from .sensitivity import LOSSES, hessian_traces, tensor_of

FORMATS = ("int3", "e2m0", "int4", "e2m1", "int5", "e2m2", "int6", "e2m3", "e3m2", "int8", "e4m3fn")
SENSITIVITIES = ("output", "hessian", "model")


@register
@dataclass(frozen=True)
class MixedPrecision(Step):
    """Choose every layer's formats at once by an integer programme. What quantizes comes after this step.

    Attributes:
        budget: limits by what they limit, such as {"bits": 4.5} or {"bytes": 2e6, "us": 900}:
            "bits": mean bits of a weight, scales included. "bytes": of all weights, scales included.
            "luts": mean LUTs of a multiply-accumulate by the shipped cost table; needs activation specs.
            "us": CPU time of the layers on the first batch, measured here and now.
            "loss": the sum of losses, where the objective is a cost.
        formats: candidates for weights: element formats, put into each layer's spec, or whole specs.
        activations: "keep" each layer's spec, give activations the "same" element format as the weight, or a tuple of
            candidates of their own. Layers with float activations keep them.
        sensitivity: the loss of a candidate. "output": squared error of the layer's outputs relative to their squares.
            "hessian": mean Hessian trace of the model's loss times the squared error of the weight; of weights only.
            "model": `loss` of the model's outputs with this one layer quantized, by the packed kernels.
        loss: "relative" (squared error of outputs) or "kl" (class scores), for "hessian" and "model".
        objective: what is made least: "loss", or a cost.
        samples: random vectors for each Hessian trace. batches: how many are used for "hessian" and "model".
    """

    name = "mixed_precision"

    budget: dict = field(default_factory=dict)
    formats: tuple = FORMATS
    activations: str | tuple = "keep"
    sensitivity: str = "output"
    loss: str = "relative"
    objective: str = "loss"
    samples: int = 8
    batches: int = 4

    def __post_init__(self):
        known = ("loss", *COSTS)
        if not isinstance(self.budget, dict) or not self.budget or not set(self.budget) <= set(known):
            raise ValueError(f"mixed_precision: budget={self.budget!r}, expected such as {{'bits': 4.5}}, of {known}")
        for name, value, allowed in (
            ("sensitivity", self.sensitivity, SENSITIVITIES),
            ("loss", self.loss, tuple(LOSSES)),
            ("objective", self.objective, known),
        ):
            if value not in allowed:
                raise ValueError(f"mixed_precision: {name}={value!r} must be one of {', '.join(allowed)}")
        if isinstance(self.activations, str) and self.activations not in ("keep", "same"):
            raise ValueError(f"mixed_precision: activations={self.activations!r} must be 'keep', 'same' or a tuple")

    def apply(self, run: Run) -> None:
        run.float_only(self)
        if all([run.restored(layer) for layer in run.layers]):
            return
        pairs = {layer: self._pairs(layer) for layer in run.layers}
        tables: dict[str, list[list[float]]] = {}
        for name in {self.objective, *self.budget}:
            table = self._losses(run, pairs) if name == "loss" else cost_table(run, pairs, name)
            tables[name] = [table[layer] for layer in run.layers]
        chosen = solve(tables[self.objective], {name: tables[name] for name in self.budget}, self.budget)
        for layer, i in zip(run.layers, chosen, strict=True):
            layer.weight, layer.activation = pairs[layer][i]
            run.keep(layer)

    def _pairs(self, layer: Layer) -> list[Pair]:
        weights = [_spec(layer.weight, f) for f in self.formats]
        if layer.activation is None or self.activations == "keep":
            return [(w, layer.activation) for w in weights]
        if self.activations == "same":
            return [(w, with_format(layer.activation, w.format)) for w in weights]
        return [(w, _spec(layer.activation, a)) for w in weights for a in self.activations]

    def _losses(self, run: Run, pairs: dict[Layer, list[Pair]]) -> dict[Layer, list[float]]:
        if self.sensitivity == "output":
            return output_losses(run, pairs)
        compare = LOSSES[self.loss]
        if self.sensitivity == "model":
            return model_losses(run, pairs, compare, self.batches)
        return hessian_losses(run, pairs, compare, self.samples, self.batches)


def _spec(spec: QuantSpec, candidate: str) -> QuantSpec:
    """The candidate: a whole spec, or an element format to put into spec."""
    return QuantSpec.parse(candidate) if "-" in candidate else with_format(spec, candidate)


def output_losses(run: Run, pairs: dict[Layer, list[Pair]]) -> dict[Layer, list[float]]:
    """Squared error of each layer's outputs over their squares, in the float model."""
    rows = {layer: Rows() for layer in pairs}
    grams = float_grams(run, pairs, {layer: [r] for layer, r in rows.items()})
    losses = {}
    for layer in run.track(pairs, "sensitivities"):
        w = layer.matrix
        power = (times_gram(w, grams[layer]) * w).double().sum().item()
        errors = pair_errors(layer, pairs[layer], grams[layer], rows[layer].value)
        losses[layer] = [e / power if power > 0 else 0.0 for e in errors]
    return losses


def hessian_losses(
    run: Run, pairs: dict[Layer, list[Pair]], compare: Callable, samples: int, batches: int
) -> dict[Layer, list[float]]:
    """Mean diagonal of the Hessian times the squared error of the weight. Source: HAWQ-V2."""
    layers, used = list(pairs), run.batches[:batches]
    weights = [layer.float.weight for layer in layers]
    wanted_grad = [w.requires_grad for w in weights]
    totals = torch.zeros(len(layers), dtype=torch.float64)
    with run.as_float():
        for w in weights:
            w.requires_grad_()
        try:
            for batch in run.track(used, "Hessian traces"):
                reference = tensor_of(run.forward(batch))

                def loss(batch=batch, reference=reference):
                    return compare(tensor_of(run._forward(run.model, batch)), reference)

                totals += torch.tensor(hessian_traces(loss, weights, samples, run.generator))
        finally:
            for w, wanted in zip(weights, wanted_grad, strict=True):
                w.requires_grad_(wanted)
    losses = {}
    for layer, total in zip(layers, totals, strict=True):
        mean = max(total.item(), 0.0) / len(used) / layer.float.weight.numel()
        errors = {p[0]: (rounded(layer, p[0]).dequantize() - layer.matrix).square().sum().item() for p in pairs[layer]}
        losses[layer] = [mean * errors[p[0]] for p in pairs[layer]]
    return losses


def model_losses(run: Run, pairs: dict[Layer, list[Pair]], compare: Callable, batches: int) -> dict[Layer, list[float]]:
    """Loss of the model's outputs where one layer alone is quantized."""
    used = run.batches[:batches]
    losses = {}
    with run.as_float():
        references = [tensor_of(run.forward(batch)) for batch in used]
        for layer in run.track(pairs, "sensitivities"):
            losses[layer] = []
            for pair in pairs[layer]:
                with run.showing({layer: made(layer, pair)}):
                    found = [compare(tensor_of(run.forward(b)), r) for b, r in zip(used, references, strict=True)]
                losses[layer].append(max(sum(found).item() / len(used), 0.0))
    return losses
