"""SmoothQuant: large activations of some channels are moved into the weights, where they do less harm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..formats import QuantSpec
from ..qtensor import quantize
from .collect import AbsMax, Samples
from .graph import Graph, Node, sources
from .layer import Layer
from .recipe import Step, register
from .rescale import can_scale_outputs, input_channels, scale_inputs, scale_outputs
from .run import Run

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SAMPLED_ROWS = 256


@register
@dataclass(frozen=True)
class SmoothQuant(Step):
    """Divide channel j of the inputs by s_j = max|X_j|**alpha / max|W_j|**(1 - alpha), and multiply the weights by it.

    The division is folded into what makes the input: a LayerNorm, an RMSNorm or a linear layer, also through ReLU and
    products (gate * up). Layers that share an input share s. Where nothing can take the factor in, inputs stay as they
    are. Float outputs stay as they are, but for rounding.

    Attributes:
        alpha: 0 to 1; None: for each input, of 0, 0.1, ..., 1 and no factor at all the one with the least output error
            once weights and inputs are rounded to nearest, on a sample of 256 rows. Of layers that share an input, the
            relative errors are added up: a value projection's outputs are often small beside those of query and key.
    Source: Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models",
        section 4, equations 3 and 4.
    """

    name = "smoothquant"
    changes = "floats"

    alpha: float | None = None

    def __post_init__(self):
        if self.alpha is not None and not (isinstance(self.alpha, (int, float)) and 0 <= self.alpha <= 1):
            raise ValueError(f"smoothquant: alpha={self.alpha!r} must be a number from 0 to 1, or None to search")

    def apply(self, run: Run) -> None:
        run.float_only(self)
        groups = find_groups(run)
        tops = {layers[0]: AbsMax() for _, layers in groups}
        samples = {layer: Samples(SAMPLED_ROWS, run.generator) for _, layers in groups for layer in layers}
        if not groups:
            return
        run.collect({layer: [samples[layer], *([tops[layer]] if layer in tops else [])] for layer in samples})
        for path, layers in run.track(groups, "smoothing"):
            factor = self._factor(layers, tops[layers[0]].value, [samples[layer].value for layer in layers])
            scale_outputs(path[0].module, 1 / factor)
            for layer in layers:
                scale_inputs(layer.float, factor)

    def _factor(self, layers: list[Layer], top: torch.Tensor, rows: list[torch.Tensor]) -> torch.Tensor:
        """The factors s, float64 (channels,), of the weights of layers with a common input."""
        weights = torch.stack([_channel_max(layer) for layer in layers]).amax(0).double()
        top = top.double()

        def of(alpha: float) -> torch.Tensor:
            s = top**alpha / weights ** (1 - alpha)
            return torch.where((top > 0) & (weights > 0) & s.isfinite(), s, 1.0).clamp(1e-5, 1e5)

        if self.alpha is not None:
            return of(self.alpha)
        candidates = [torch.ones_like(top), *map(of, ALPHAS)]
        sizes = [output_size(layer, x) for layer, x in zip(layers, rows, strict=True)]
        errors = [
            sum(rounding_error(layer, x, s) / size for layer, x, size in zip(layers, rows, sizes, strict=True))
            for s in candidates
        ]
        return candidates[errors.index(min(errors))]


def output_size(layer: Layer, rows: torch.Tensor) -> float:
    """Sum of squares of the float outputs, without the bias, for rows (row_groups, M, K)."""
    w = layer.matrix.reshape(rows.shape[0], -1, rows.shape[2])
    return max((rows @ w.mT).double().square().sum().item(), torch.finfo(torch.float64).tiny)


def rounding_error(layer: Layer, rows: torch.Tensor, factor: torch.Tensor) -> float:
    """Sum of squared output errors once W * factor and rows / factor are rounded to nearest.

    Args:
        rows: (row_groups, M, K). factor: (channels,).
    """
    groups, _, k = rows.shape
    w = layer.matrix.reshape(groups, -1, k)
    s = factor.float().reshape(groups, 1, -1)
    s = s.repeat_interleave(k // s.shape[2], 2)
    rounded = layer.nearest((w * s).reshape(-1, k)).dequantize().reshape(w.shape)
    x = _rounded(rows / s, layer.activation)
    return (x @ rounded.mT - rows @ w.mT).double().square().sum().item()


def _rounded(rows: torch.Tensor, spec: QuantSpec | None) -> torch.Tensor:
    return rows if spec is None else quantize(rows.flatten(0, 1), spec).dequantize().reshape(rows.shape)


def _channel_max(layer: Layer) -> torch.Tensor:
    """Largest magnitude of the weights of each input channel."""
    groups, w = layer.row_groups, layer.float.weight.detach().float().abs()
    return w.reshape(groups, w.shape[0] // groups, w.shape[1], -1).amax((1, 3)).flatten()


def find_groups(run: Run) -> list[tuple[list[Node], list[Layer]]]:
    """For each input of selected layers whose maker can take in factors: the path from that maker, and the layers."""
    graph = Graph(run)
    parameters = [id(p) for m in run.model.modules() for p in m._parameters.values() if p is not None]
    by_input: dict[Node, list[Layer]] = {}
    for layer in run.layers:
        node = graph.of(layer.float)
        if node is not None and node.inputs and node.inputs[0] is not None:
            by_input.setdefault(node.inputs[0], []).append(layer)

    def free(module) -> bool:
        return graph.of(module) is not None and all(
            parameters.count(id(p)) == 1 for p in module._parameters.values() if p is not None
        )

    groups = []
    for layers in by_input.values():
        for path in sources([graph.of(layer.float) for layer in layers]):
            fits = can_scale_outputs(path[0].module, input_channels(layers[0].float))
            if fits and all(map(free, [path[0].module, *(layer.float for layer in layers)])):
                groups.append((path, layers))
                break
    return groups
