"""The compiled CUDA kernels: whether they are built, and whether a GPU here can run them."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cache

import torch

from .. import _C  # noqa: F401  registers the ops

OLDEST = (8, 0)  # mma.sync of 8-bit and bfloat16 operands, cp.async


def built() -> bool:
    """Whether the extension was compiled with the CUDA kernels."""
    return hasattr(torch.ops.minifloat, "cuda_version")


@contextmanager
def preferred(kernels: str = ""):
    """For tests and measurements: use these kernels wherever the plan allows them, in all threads.

    kernels: "bits" (products of single bits), "tables" (sums of x looked up by weights of one bit), "product" (weights
        decoded to memory, then cuBLAS), "wide" (mma.sync where wgmma would run), "usual" (none of these), or ""
        (whichever is believed to be fastest).
    Raises:
        RuntimeError: the CUDA kernels are not built.
        ValueError: no kernels of that name.
    """
    if not built():
        raise RuntimeError(f"cuda.preferred({kernels!r}): the CUDA kernels are {state()}")
    torch.ops.minifloat.cuda_prefer(kernels)
    try:
        yield
    finally:
        torch.ops.minifloat.cuda_prefer("")


def route(plan: torch.Tensor, rows: int, dtype: torch.dtype) -> str:
    """The kernels that multiply so many rows of that type on the current GPU, and how: "narrow int8"."""
    return torch.ops.minifloat.cuda_route(plan, rows, dtype)


@cache
def state() -> str:
    """ "available (NAME, sm_XY)", or why not. Never raises."""
    if not built():
        return "not built (no CUDA compiler)" if torch.version.cuda else "not built (torch has no CUDA)"
    if not torch.cuda.is_available():
        return "built, but there is no GPU"
    capability = torch.cuda.get_device_capability()
    name = f"{torch.cuda.get_device_name()}, sm_{capability[0]}{capability[1]}"
    if capability < OLDEST:
        return f"too old a GPU ({name}; sm_80 is needed)"
    return f"available ({name})"
