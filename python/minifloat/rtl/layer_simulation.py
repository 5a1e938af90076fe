"""Runs a Layer in simulation: activation codes in, results out, as the hardware would be used."""

from __future__ import annotations

import numpy as np

from .layer import Layer
from .simulate import Bench, integers_of, words_of
from .stream import reset, run_stream


def hex_text(words: list[int], bits: int) -> str:
    """A $readmemh file: one word a line."""
    digits = -(-bits // 4)
    return "".join(f"{word:0{digits}x}\n" for word in words)


def memory_files(layer: Layer) -> dict[str, str]:
    """The texts of the layer's $readmemh files by name."""
    widths = {"weights": layer.lanes * layer.pair.w.bits, "bias": layer.sum_bits}
    if layer.requantize:
        widths["multipliers"] = layer.requantize.multiplier_bits
    return {
        name: hex_text(words, widths[name.removeprefix(f"{layer.name}_").removesuffix(".hex")])
        for name, words in layer.memories().items()
    }


def input_beats(layer: Layer, activations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Activation codes (M, K) as beats: (M * beats, words) uint32, and tlast."""
    codes = activations.reshape(-1, layer.lanes).astype(object)
    packed = (codes << (layer.pair.a.bits * np.arange(layer.lanes))).sum(axis=1)
    last = np.arange(len(codes)) % layer.beats == layer.beats - 1
    return words_of(packed, layer.in_width), last


def output_values(layer: Layer, data: np.ndarray) -> np.ndarray:
    """(M * N, words) of output beats as (M, N): exact integers, or codes."""
    signed = layer.requantize is None and layer.sum_range[0] < 0
    values = integers_of(data, layer.out_width, signed)
    return values.reshape(-1, layer.n)


class LayerSimulation:
    """A Layer compiled for simulation. Calling it streams a batch of vectors through.

    layers: several are built together, which compiles faster.
    """

    def __init__(self, layers: list[Layer]):
        texts = [layers[0].shell()] + [part.render() for layer in layers for part in layer.parts()]
        files = {name: text for layer in layers for name, text in memory_files(layer).items()}
        self.layers = {layer.name: layer for layer in layers}
        self.bench = Bench([layer.module() for layer in layers], texts, files)
        for layer in layers:
            reset(self.bench, layer.name)

    def __call__(self, name: str, activations: np.ndarray, gaps: tuple[float, float] = (0.0, 0.0), seed: int = 1):
        """Results (M, N) for activation codes (M, K), and the clocks they took."""
        layer = self.layers[name]
        data, last = input_beats(layer, activations)
        answer = run_stream(self.bench, name, data, last, len(activations) * layer.n, gaps, seed)
        ends = np.flatnonzero(answer.last)
        if not np.array_equal(ends, np.arange(1, len(activations) + 1) * layer.n - 1):
            raise AssertionError(f"{name}: tlast is not on the last of every {layer.n} results")
        return output_values(layer, answer.data), answer.clocks
