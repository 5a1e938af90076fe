"""The compiled ops under torch.ops.minifloat: loading, shapes for tracing, and the weight layout as Python sees it."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from .. import _C
from ..formats import QuantSpec
from ..qtensor import QTensor
from . import fakes, triton  # noqa: F401  register the shapes, and the CUDA key where it is free
from .records import plan_record

isa = _C.isa
supported_isas = _C.supported_isas
select_isa = _C.select_isa

RAW_SCALES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "e8m0fnu": torch.uint8, "e4m3fn": torch.uint8}


def choice(
    plan: torch.Tensor, rows: int, marked: float = 0.0, beyond: float = 0.0, residues: float = 0.0
) -> tuple[str, str]:
    """How the CPU multiplies so many rows: (method, where it decodes weights), by the table kernels/cpu/choice.h.

    A method may be quick only where something is rare, which a call counts: `marked`, the share of blocks (32 k's of 16
    outputs) that the weight's layout marks, `beyond`, that of activations which are to be cut off, and `residues`, that
    of weights which the layout lists because a byte does not hold them (0: it lists none).
    """
    method, decode = _C.choice(bytes(plan.numpy()), rows, marked, beyond, residues)
    return method, ("registers", "panel", "gemm")[decode]


@contextmanager
def forced_choice(method: str = "", decode: str = ""):
    """For tests and measurements: take this method and way to decode wherever the plan allows it, in all threads.

    Raises:
        ValueError: no such method or way to decode.
    """
    _C.force_choice(method, decode)
    try:
        yield
    finally:
        _C.force_choice("", "")


def prepare(q: QTensor, activation: QuantSpec | None) -> tuple[torch.Tensor, torch.Tensor]:
    """What torch.ops.minifloat.linear takes: the weight in its kernels' layout on its device, and the plan on the CPU.

    Raises:
        ValueError: the group sizes do not fit K.
    """
    tensor_scale = 1.0 if q.tensor_scale is None else float(q.tensor_scale)
    plan = plan_record(q.spec, activation, q.shape, tensor_scale)
    return torch.ops.minifloat.pack_weight(q.packed, q.scale_data, q.zero_points, plan), plan


def restore(weight: torch.Tensor, plan: torch.Tensor, spec: QuantSpec, shape: tuple[int, int]) -> QTensor:
    """The inverse of prepare, bit for bit."""
    packed, scales, zero_points = torch.ops.minifloat.restore_weight(weight, plan)
    tensor_scale = None
    if spec.scale_format == "e4m3fn":
        tensor_scale = torch.tensor(fakes.plan_fields(plan)["weight"]["tensor_scale"], dtype=torch.float32)
    return QTensor(
        spec,
        shape,
        packed,
        scales.view(RAW_SCALES[spec.scale_format]),
        zero_points if spec.zero_point else None,
        tensor_scale,
    )
