"""Does a layer inside the running model compute what the emulator says? Asked of a few layers, on their real inputs."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import minifloat as mf

from .model import Batch, embed

# One of each shape (K, N), from the first layer to the last: (384, 384), (384, 1536), (1536, 384).
LAYERS = (
    "encoder.layer.0.attention.self.query",
    "encoder.layer.2.intermediate.dense",
    "encoder.layer.5.output.dense",
)
ROWS = 8


@dataclass(frozen=True)
class Check:
    """What the comparison found.

    outputs: how many were compared. equal: how many had the emulator's bits (exact contract; None for float).
    error_over_bound: the largest error as a share of the documented bound (float contract; None for exact).
    """

    outputs: int
    equal: int | None
    error_over_bound: float | None

    @property
    def passed(self) -> bool:
        if self.equal is not None:
            return self.equal == self.outputs
        return self.error_over_bound <= 1

    def __str__(self) -> str:
        if self.equal is not None:
            return f"exact: {self.equal} of {self.outputs} bit-equal"
        return f"float: {self.error_over_bound:.3f} of error bound"


@dataclass(frozen=True)
class Sample:
    """What went into a layer and came out of it, for a few tokens of a whole batch."""

    layer: nn.Module
    x: torch.Tensor  # (rows, K)
    y: torch.Tensor  # (rows, N)


def check(model: nn.Module, batch: Batch, activation: str | None) -> Check:
    """Run the batch and compare ROWS tokens of each of LAYERS with the emulator.

    The layers see the whole batch, the emulator only these rows: equal bits also mean that batching changed nothing.
    """
    samples = sample_layers(model, batch)
    outputs = sum(s.y.numel() for s in samples)
    if activation is None:
        return Check(outputs, None, max(_error_over_bound(s) for s in samples))
    return Check(outputs, sum(_equal_outputs(s, activation) for s in samples), None)


def sample_layers(model: nn.Module, batch: Batch) -> list[Sample]:
    """Run the batch once and keep ROWS tokens, no padding among them, of what goes in and out of each of LAYERS."""
    real = batch.tokens["attention_mask"].flatten().nonzero().flatten()
    picked = real[torch.linspace(0, len(real) - 1, ROWS).long()]
    samples: list[Sample] = []

    def keep(layer, args, y):
        samples.append(Sample(layer, args[0].flatten(0, -2)[picked].clone(), y.flatten(0, -2)[picked].clone()))

    handles = [model.get_submodule(name).register_forward_hook(keep) for name in LAYERS]
    try:
        embed(model, batch)
    finally:
        for handle in handles:
            handle.remove()
    return samples


def _equal_outputs(sample: Sample, activation: str) -> int:
    """How many outputs have the emulator's bits: compared as integers, so that -0 is not 0 and NaN equals itself."""
    expected = mf.emulator.linear(sample.x, sample.layer.qtensor, sample.layer.bias, activation)
    if sample.y.shape != expected.shape or sample.y.dtype != expected.dtype:
        return 0
    return int((sample.y.view(torch.int32) == expected.view(torch.int32)).sum())


def _error_over_bound(sample: Sample) -> float:
    """The largest error against float64, as a share of what docs/numerics.md allows that output."""
    q, bias = sample.layer.qtensor, sample.layer.bias
    x, bias = sample.x.double().numpy(), bias.detach().double().numpy()
    exact = x @ mf.emulator.dequantize(q).T + bias
    error = np.abs(sample.y.double().numpy() - exact)
    return float((error / mf.emulator.float_bound(sample.x, q, sample.layer.bias)).max())
