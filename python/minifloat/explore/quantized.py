"""The quantized model of a cell."""

from __future__ import annotations

from torch import nn

from ..nn.kinds import KINDS
from ..ptq import calibrate
from .cells import Cell
from .tasks import Task

WANTED = ("linear", "conv2d")
GROUPED_INPUT = "int8-tensor-zp"  # behind a ReLU, a zero point keeps the sign from wasting half of the codes


def quantized(task: Task, cell: Cell) -> nn.Module:
    """task.model quantized as the cell says: a new model, or task.model itself for the float32 cell.

    Whatever the cell says, the input of a grouped convolution is int8 with one scale and zero point: it is a small part
    of the work, a scale for each patch would be a finer format than hardware has, and with one scale for channels of
    all magnitudes fewer bits leave nothing of MobileNetV2 (see docs/study.md).
    """
    if cell.weight is None:
        return task.model
    overrides: dict[str, dict | None] = dict.fromkeys(task.leave_out)
    if cell.activation is not None:
        overrides |= dict.fromkeys(depthwise(task.model), {"activation": GROUPED_INPUT})
    if cell.ends is not None:
        ends = {"weight": cell.ends, "activation": cell.ends if cell.activation else None}
        overrides |= {name: ends for name in first_and_last(task.model)}
    return calibrate(
        task.model,
        task.calibration,
        cell.method,
        weight=cell.weight,
        activation=cell.activation,
        overrides=overrides,
        kinds=WANTED,
        seed=cell.seed,
    )


def first_and_last(model: nn.Module) -> list[str]:
    """The names of the first and the last layer that can be quantized, in the model's order."""
    types = tuple(KINDS[kind].float_type for kind in WANTED)
    names = [name for name, module in model.named_modules() if isinstance(module, types)]
    return [names[0], names[-1]]


def depthwise(model: nn.Module) -> list[str]:
    """The names of the grouped convolutions."""
    return [name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and module.groups > 1]
