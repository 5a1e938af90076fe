"""How far a quantized weight is from the float one, seen on its own or through the inputs it multiplies."""

from __future__ import annotations

import torch

from ..qtensor import QTensor


def gram_of(x: torch.Tensor) -> torch.Tensor:
    """float64 (..., K, K): the mean of x_i x_j over the rows of x (..., M, K); half the Hessian of the squared error.

    Raises:
        ValueError: x has no rows, or holds NaN or infinity.
    """
    if not x.shape[-2]:
        raise ValueError(f"calibration inputs of shape {tuple(x.shape)} hold no rows")
    x = x.detach().double()
    gram = x.mT @ x / x.shape[-2]
    if not gram.isfinite().all():
        raise ValueError("calibration inputs hold NaN or infinity")
    return gram


def times_gram(d: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
    """(N, K): each row of d (N, K) times its gram: (K, K), or (R, K, K) for the R runs of rows of a grouped layer."""
    if gram.dim() == 2:
        return d @ gram.to(d.dtype)
    return (d.reshape(gram.shape[0], -1, d.shape[1]) @ gram.to(d.dtype)).reshape(d.shape)


def row_errors(w: torch.Tensor, q: QTensor, gram: torch.Tensor | None = None) -> torch.Tensor:
    """float64 (N,): squared error of each output, mean over the calibration rows; of the weights without a gram.

    Args:
        w: (N, K). gram: (K, K) or (R, K, K) as gram_of returns it.
    """
    delta = q.dequantize().double() - w.detach().double()
    return ((delta if gram is None else times_gram(delta, gram)) * delta).sum(1)


def error(w: torch.Tensor, q: QTensor, gram: torch.Tensor | None = None) -> float:
    """The sum of row_errors."""
    return row_errors(w, q, gram).sum().item()
