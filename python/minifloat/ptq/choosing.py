"""What the steps that choose formats share: the errors of candidates for a layer of a model, and setting the best."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch

from ..formats import QuantSpec
from ..qtensor import QTensor
from .choice import activation_errors
from .collect import Collector, Hessian
from .errors import error
from .layer import Layer
from .run import Run

Pair = tuple[QuantSpec, QuantSpec | None]
SAMPLES = 256  # rows of a layer's inputs on which activation formats are compared


class Rows(Collector):
    """The first `limit` rows of the first batch, (row_groups, <= limit, K): enough for an error of rounding."""

    def __init__(self, limit: int = SAMPLES):
        self.limit = limit
        self.value: torch.Tensor | None = None

    def update(self, layer: Layer, x: torch.Tensor) -> None:
        if self.value is None:
            self.value = layer.rows(x)
            every = max(1, self.value.shape[1] // self.limit)
            self.value = self.value[:, ::every][:, : self.limit].clone()


def float_grams(
    run: Run, layers: Iterable[Layer], others: dict[Layer, list[Collector]] | None = None
) -> dict[Layer, torch.Tensor]:
    """Of each layer the mean of x^T x over its inputs in the float model, (row_groups, K, K) float32.

    Args:
        others: collectors that see the same pass.
    """
    found = {layer: Hessian(torch.float32) for layer in layers}
    with run.as_float():
        run.collect({layer: [h, *(others or {}).get(layer, [])] for layer, h in found.items()}, "observing inputs")
    return {layer: h.value / h.count for layer, h in found.items()}


def pair_errors(layer: Layer, pairs: Iterable[Pair], gram: torch.Tensor, x: torch.Tensor | None) -> list[float]:
    """Of each pair of weight and activation spec the error of the layer's outputs: of the weight and the inputs, added.

    The two are taken as independent.
    Args:
        x: (row_groups, M, K), inputs; may be None where all pairs leave them float.
    """
    pairs = list(pairs)
    w = layer.matrix
    weights = {spec: error(w, rounded(layer, spec), gram) for spec in dict.fromkeys(p[0] for p in pairs)}
    inputs = list(dict.fromkeys(p[1] for p in pairs if p[1] is not None))
    activations = activation_errors(x, inputs, w) if inputs else {}
    return [weights[a] + activations.get(str(b), 0.0) for a, b in pairs]


def rounded(layer: Layer, spec: QuantSpec) -> QTensor:
    """The layer's weight rounded to nearest in this spec, by its scale rule.

    Raises:
        ValueError: K does not fit the groups; names the layer.
    """
    w = layer.matrix
    try:
        scales = layer.rule.find(w, spec)
    except ValueError as problem:
        raise ValueError(f"layer {layer.name!r} as {spec}: {problem}") from problem
    return scales.qtensor(scales.codes(w))


def set_best(run: Run, step, candidates: Callable[[Layer], Iterable[Pair]]) -> None:
    """Give each layer the pair of specs with the smallest error; of equals the first. The weights stay float."""
    run.float_only(step)
    todo = [layer for layer in run.layers if not run.restored(layer)]
    if not todo:
        return
    rows = {layer: Rows() for layer in todo}
    grams = float_grams(run, todo, {layer: [r] for layer, r in rows.items()})
    for layer in run.track(todo, step.name):
        pairs = list(candidates(layer))
        errors = pair_errors(layer, pairs, grams[layer], rows[layer].value)
        layer.weight, layer.activation = pairs[errors.index(min(errors))]
        run.keep(layer)
