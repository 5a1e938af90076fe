"""Calibration batches: how they are kept, checked and given to the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import nn


def read_batches(data: Iterable) -> list:
    """The batches as a list, so that every pass sees the same ones.

    Raises:
        ValueError: there are none, one has no elements, or one holds NaN or infinity.
    """
    if isinstance(data, torch.Tensor):
        raise ValueError(f"calibrate: data is one tensor {tuple(data.shape)}: give a list of batches, such as [x]")
    batches = list(data)
    if not batches:
        raise ValueError("calibrate: data has no batches")
    for i, batch in enumerate(batches):
        tensors = list(tensors_of(batch))
        if not tensors:
            raise ValueError(f"calibrate: batch {i} holds no tensor; it is a {type(batch).__name__}")
        for tensor in tensors:
            if tensor.numel() == 0:
                raise ValueError(f"calibrate: batch {i} is empty: it holds a tensor of shape {tuple(tensor.shape)}")
            if tensor.is_floating_point() and not tensor.isfinite().all():
                at = tuple((~tensor.isfinite()).nonzero()[0].tolist())
                raise ValueError(f"calibrate: batch {i} holds {tensor[at].item()} at {at}; data must be finite")
    return batches


def tensors_of(batch) -> Iterable[torch.Tensor]:
    """The tensors in a batch: itself, or those of a list, tuple or mapping."""
    if isinstance(batch, torch.Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from tensors_of(value)
    elif isinstance(batch, (list, tuple)):
        for value in batch:
            yield from tensors_of(value)


def call(model: nn.Module, batch):
    """model(x), model(*batch) for a list or tuple, model(**batch) for a mapping."""
    if isinstance(batch, Mapping):
        return model(**batch)
    if isinstance(batch, (list, tuple)):
        return model(*batch)
    return model(batch)
