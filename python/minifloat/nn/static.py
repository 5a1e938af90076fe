"""Activations whose range was measured beforehand: one fixed scale, without a kernel of its own.

The kernels scale activations by what they find in x. Two rows that hold the ends of the range, and x clipped to it,
make them find the same scale for every x; the two rows of the result are dropped. So a static layer gives, to the bit,
what the reference gives for these rows, and a row's result no longer depends on the other rows.
"""

from __future__ import annotations

import torch

from ..formats import QuantSpec


def can_be_static(spec: QuantSpec | None) -> bool:
    """Whether x has a scale for the whole tensor, alone or as second level."""
    return spec is not None and (spec.granularity == "tensor" or spec.scale_format == "e4m3fn")


def pinned(x: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
    """float32 (..., M + 2, K) of x (..., M, K): clipped to the range, with the rows of its ends below. ends: (2,)."""
    x = x.float()
    rows = ends[:, None].expand(*x.shape[:-2], 2, x.shape[-1])
    return torch.cat([x.clamp(ends[0], ends[1]), rows], dim=-2)


def as_range(low: float, high: float) -> torch.Tensor:
    """float32 (2,): the range from low to high, made to include 0.

    Raises:
        ValueError: not finite, or low above high.
    """
    ends = torch.tensor([min(low, 0.0), max(high, 0.0)], dtype=torch.float32)
    if not ends.isfinite().all() or not low <= high:
        raise ValueError(f"input range [{low}, {high}] must be finite and in order")
    return ends
