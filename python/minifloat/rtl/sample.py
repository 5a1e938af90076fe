"""A real layer to build and check hardware with: its float weights, its bias, and what it is fed in its model."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEFAULT_LAYER = "encoder.layer.0.attention.self.query"


@dataclass(frozen=True)
class Sample:
    """weight: (N, K) float32. bias: (N,) float32 or None. x: (rows, K) float32, what the layer is really fed."""

    name: str
    weight: np.ndarray
    bias: np.ndarray | None
    x: np.ndarray


def minilm(layer: str = DEFAULT_LAYER, rows: int = 288) -> Sample:
    """A layer of the demo's sentence encoder, fed with paragraphs of English.

    Raises:
        ModuleNotFoundError: the demo's packages are not installed; the message says how to get them.
        ValueError: the model has no linear layer of that name.
    """
    import torch

    from ..demo.model import embed, load_model, make_batches
    from ..demo.texts import paragraphs

    model = load_model()
    modules = {name: m for name, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    if layer not in modules:
        raise ValueError(f"the model has no linear layer {layer!r}; one of them is {next(iter(modules))!r}")
    seen: list[torch.Tensor] = []
    handle = modules[layer].register_forward_hook(lambda module, args, y: seen.append(args[0].detach()))
    try:
        count = 0
        for batch in make_batches(paragraphs(64), size=16):
            embed(model, batch)
            seen[-1] = seen[-1][batch.tokens["attention_mask"].bool()]
            count += len(seen[-1])
            if count >= rows:
                break
    finally:
        handle.remove()
    module = modules[layer]
    bias = None if module.bias is None else module.bias.detach().numpy().copy()
    return Sample(layer, module.weight.detach().numpy().copy(), bias, torch.cat(seen)[:rows].numpy().copy())


def from_files(weights: str, layer: str, inputs: str | None, rows: int) -> Sample:
    """A layer of a safetensors file: `layer`.weight and, if there, `layer`.bias.

    Args:
        inputs: .npy of (rows, K) float32; None draws normal numbers.
    """
    from safetensors.numpy import load_file

    tensors = load_file(weights)
    if f"{layer}.weight" not in tensors:
        names = [n.removesuffix(".weight") for n, t in tensors.items() if n.endswith(".weight") and t.ndim == 2]
        raise ValueError(f"{weights} has no {layer}.weight; it has {', '.join(names[:6]) or 'no matrices'}")
    weight = tensors[f"{layer}.weight"].astype(np.float32)
    if inputs is None:
        x = np.random.default_rng(0).standard_normal((rows, weight.shape[1])).astype(np.float32)
    else:
        x = np.load(inputs).astype(np.float32)
    bias = tensors.get(f"{layer}.bias")
    return Sample(layer, weight, None if bias is None else bias.astype(np.float32), x)
