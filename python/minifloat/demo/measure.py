"""One setting: quantize a copy of the model, save it, embed every paragraph beside float32, check sampled layers."""

import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import minifloat as mf

from .check import Check, check
from .model import Batch, embed
from .settings import Setting


@dataclass(frozen=True)
class Reference:
    """The float32 model and what it says about every paragraph."""

    model: nn.Module
    batches: list[Batch]
    embeddings: torch.Tensor  # (paragraphs, 384)
    file_bytes: int


@dataclass(frozen=True)
class Result:
    """One row of the table."""

    setting: Setting
    bits_per_weight: float  # of the Linear layers, scales included
    file_bytes: int
    cosine: float  # mean over paragraphs, to the float32 embedding
    neighbour_agreement: float  # share of paragraphs whose nearest other paragraph is the one float32 finds
    time_ms: float  # median over the timed batches
    float32_time_ms: float  # the same batches, taking turns with the above
    speedup: float  # median over these batches of (float32 time / this time)
    check: Check


def measure_float32(model: nn.Module, batches: list[Batch], tick: Callable[[], None]) -> Reference:
    """Embed every paragraph with the float32 model, which also warms it up."""
    embeddings = torch.empty(sum(len(batch.rows) for batch in batches), model.config.hidden_size)
    for batch in batches:
        embeddings[batch.rows] = embed(model, batch)
        tick()
    return Reference(model, batches, embeddings, saved_bytes(model))


def measure(setting: Setting, ref: Reference, tick: Callable[[], None]) -> Result:
    """Quantize every Linear of a copy of the float32 model and measure it; tick is called once a batch."""
    model = mf.quantize_(copy.deepcopy(ref.model), weight=setting.weight, activation=setting.activation)
    checked = check(model, ref.batches[0], setting.activation)  # also the first call, which is not timed
    embeddings = torch.empty_like(ref.embeddings)
    times_s, float32_times_s = [], []
    for i, batch in enumerate(ref.batches):
        # Every second batch, the longest among them, runs through both models; who goes first alternates, so that a
        # machine that slows down favours neither.
        turn = len(ref.batches) - 1 - i
        order = [model] if turn % 2 else [ref.model, model] if turn % 4 else [model, ref.model]
        for runner in order:
            start = time.perf_counter()
            out = embed(runner, batch)
            elapsed_s = time.perf_counter() - start
            if len(order) == 2:
                (times_s if runner is model else float32_times_s).append(elapsed_s)
            if runner is model:
                embeddings[batch.rows] = out
        tick()
    return Result(
        setting=setting,
        bits_per_weight=bits_per_weight(model),
        file_bytes=saved_bytes(model),
        cosine=mean_cosine(embeddings, ref.embeddings),
        neighbour_agreement=neighbour_agreement(embeddings, ref.embeddings),
        time_ms=1e3 * statistics.median(times_s),
        float32_time_ms=1e3 * statistics.median(float32_times_s),
        speedup=statistics.median(f / q for f, q in zip(float32_times_s, times_s, strict=True)),
        check=checked,
    )


def bits_per_weight(model: nn.Module) -> float:
    """Return the mean over all quantized weights of the bits each one takes, scales included."""
    layers = [module for module in model.modules() if isinstance(module, mf.nn.QLinear)]
    sizes = [layer.in_features * layer.out_features for layer in layers]
    bits = sum(layer.bits_per_value * size for layer, size in zip(layers, sizes, strict=True))
    return bits / sum(sizes)


def saved_bytes(model: nn.Module) -> int:
    """Return the size of the model's checkpoint on disk."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        mf.save(model, path)
        return path.stat().st_size


def mean_cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the mean cosine of matching rows, in float64: 1 - cosine of good formats is below float32's resolution."""
    return nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).mean().item()


def neighbour_agreement(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the share of rows whose most similar other row is the same in a and in b."""
    return (nearest(a) == nearest(b)).double().mean().item()


def nearest(embeddings: torch.Tensor) -> torch.Tensor:
    """Return for each row the index of the other row with the largest cosine; the lowest index if several tie."""
    unit = nn.functional.normalize(embeddings.double(), dim=-1)
    return (unit @ unit.T).fill_diagonal_(-torch.inf).argmax(dim=-1)
