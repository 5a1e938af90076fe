"""numpy in, numpy out; torch in, torch out: without importing torch."""

from __future__ import annotations

import sys

import numpy as np


def is_torch(x) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def to_numpy(x) -> np.ndarray:
    """x as a numpy array; 16-bit torch floats widen to float32, which is exact."""
    if not is_torch(x):
        return np.asarray(x)
    torch = sys.modules["torch"]
    x = x.detach().cpu()
    if x.is_floating_point() and x.dtype not in (torch.float32, torch.float64):
        x = x.float()
    return x.numpy()


def like(array: np.ndarray, x):
    """array as the kind of x: a torch tensor on x's device, or numpy."""
    if not is_torch(x):
        return array
    return sys.modules["torch"].from_numpy(np.ascontiguousarray(array).reshape(array.shape)).to(x.device)


def first_index(mask: np.ndarray) -> tuple[int, ...]:
    """The index of the first True of mask, for error messages."""
    return tuple(int(i) for i in np.unravel_index(int(np.argmax(mask)), mask.shape))
