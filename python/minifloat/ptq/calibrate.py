"""mf.calibrate: quantize a model with calibration data by a recipe."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn

from ..formats import QuantSpec
from ..nn.quantize_model import plan_layers, report_on, warn_of
from ..nn.report import LayerReport
from ..nn.selection import Overrides, Select
from .data import call, read_batches, tensors_of
from .layer import Layer
from .recipe import Recipe, Step
from .run import Run
from .store import Store, crc_of


def calibrate(
    model: nn.Module,
    data: Iterable,
    recipe: str | Step | Recipe | Iterable = "",
    weight: str | QuantSpec = "e2m1-g32-e8m0",
    activation: str | QuantSpec | None = None,
    *,
    select: Select = None,
    overrides: Overrides | None = None,
    kinds: Sequence[str] = ("linear", "conv2d"),
    forward: Callable | None = None,
    seed: int = 0,
    resume: str | os.PathLike | None = None,
    in_place: bool = False,
    report: list[LayerReport] | None = None,
) -> nn.Module:
    """Quantize the layers of a model by a recipe; what no step of it has quantized is rounded to nearest.

    Args:
        model: a float model. It stays as it was; what is returned is a copy, in eval mode.
        data: batches, read once and kept: tensors for model(x), lists or tuples for model(*batch), mappings for
            model(**batch).
        recipe: steps such as "smoothquant(alpha=0.5) + gptq + bias_correction"; see Recipe. "" is round-to-nearest.
        weight, activation, select, overrides, report: as in mf.quantize_.
        kinds: the kinds of layers that are quantized, of "linear", "conv2d" and "embedding". Embeddings are always
            rounded to nearest.
        forward: forward(model, batch) -> output, where a batch is not simply the model's arguments.
        seed: of whatever is random.
        resume: a folder for what is finished. If it holds an interrupted run with the same recipe, specs, model and
            data, that is continued. It is not deleted at the end. It holds pickles: use none from strangers.
        in_place: change `model` itself, which saves its memory. If anything fails, it is left half done.
    Returns:
        The quantized model, whose layers run the packed kernels.
    Raises:
        ValueError: data is empty or holds NaN or infinity, there is no layer to quantize, a step is unknown or in the
            wrong place, or `resume` holds another run or is damaged.
    """
    recipe = Recipe.parse(recipe)
    batches = read_batches(data)
    if not in_place:
        model = copy.deepcopy(model)
    model.eval()
    try:
        found = plan_layers(model, weight, activation, select, overrides, kinds)
    except ValueError as error:
        raise ValueError(str(error).replace("quantize_:", "calibrate:")) from error
    warn_of(found, "calibrate")
    layers = [Layer(one) for one in found if one.weight is not None]
    store = Store(resume, _identity(recipe, layers, model, batches, seed)) if resume is not None else None
    with torch.no_grad(), _every_layer_called():
        run = Run(model, batches, layers, forward or call, seed, store)
        for number, step in enumerate(recipe.steps):
            run.apply(step, number)
        run.quantize_rest()
    if report is not None:
        report.extend(map(report_on, found))
    return model


@contextmanager
def _every_layer_called() -> Iterator[None]:
    """Transformer layers of torch have a fused path that reads the weights of their linears instead of calling them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _identity(recipe: Recipe, layers: list[Layer], model: nn.Module, batches: list, seed: int) -> dict:
    """What two runs must have in common for one to continue the other."""
    return {
        "recipe": str(recipe),
        "seed": seed,
        "layers": [[layer.name, str(layer.weight), str(layer.activation)] for layer in layers],
        "model": crc_of([*model.parameters(), *model.buffers()]),
        "data": crc_of([tensor for batch in batches for tensor in tensors_of(batch)]),
    }
