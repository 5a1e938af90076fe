"""What the Triton ops refuse, in the words of the CPU ops (csrc/linear.cpp, csrc/storage.cpp)."""

from __future__ import annotations

import math

import torch

from .records import OPERAND
from .triton_plan import FLOAT8, X_TYPES, TritonPlan

# The names that C++ prints.
_TYPE_NAMES = {"float64": "Double", "float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "bool": "Bool"}
_TYPE_NAMES |= {"int64": "Long", "int32": "Int", "int16": "Short", "int8": "Char", "uint8": "Byte"}
_TYPE_NAMES |= {"complex64": "ComplexFloat", "complex128": "ComplexDouble"}


def type_name(dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return _TYPE_NAMES.get(name, name[0].upper() + name[1:])


def _place(t: torch.Tensor) -> str:
    return "the CPU" if t.device.type == "cpu" else "a GPU"


def check(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


def check_weight(p: TritonPlan, weight: torch.Tensor, n: int | None = None, k: int | None = None) -> None:
    wanted = p.layout.bytes
    if weight.dtype != torch.uint8 or weight.numel() != wanted or not weight.is_contiguous():
        raise ValueError(
            f"linear: the packed weight must be {wanted} contiguous bytes on {_place(weight)}, got {weight.numel()} of "
            f"{type_name(weight.dtype)} on {weight.device}"
        )
    check(n is None or n == p.n, f"linear: out_features={n} but the weight has N={p.n}")
    check(k is None or k == p.k, f"linear: in_features={k} but the weight has K={p.k}")


def as_rows(x: torch.Tensor, k: int, op: str, device: torch.device | None = None) -> torch.Tensor:
    """x as a contiguous matrix with k columns. device: where the weight is that x, of 8-bit floats too, is for."""
    if device is not None and x.device != device:
        raise ValueError(
            f"{op}: x is on {x.device} but the weight is on {'the CPU' if device.type == 'cpu' else device}"
        )
    if x.dtype not in X_TYPES and (device is None or x.dtype not in FLOAT8):
        more = " or float16" if device is None else ", float16, float8_e4m3fn or float8_e5m2"
        raise ValueError(f"{op}: x is {type_name(x.dtype)}; expected float32, bfloat16{more}")
    if x.dim() < 1 or x.shape[-1] != k:
        raise ValueError(f"{op}: x has shape {list(x.shape)} but the weight has K={k}")
    return (x if x.dim() == 2 else x.reshape(math.prod(x.shape[:-1]), k)).contiguous()


def check_bias(p: TritonPlan, bias: torch.Tensor, x: torch.Tensor) -> None:
    check(tuple(bias.shape) == (p.n,), f"linear: bias has shape {list(bias.shape)}, expected [{p.n}]")
    check(bias.device == x.device, f"linear: bias is on {bias.device} but x is on {x.device}")


def check_storage(p: TritonPlan, packed, scales, zero_points) -> None:
    """What pack_weight takes."""
    row_bytes = -(-p.k * p.w.bits // 8)
    count = 1 if p.weight["granularity"] == 0 else p.n * p.layout.groups
    size = p.scale_bytes
    if packed.dtype != torch.uint8 or tuple(packed.shape) != (p.n, row_bytes):
        raise ValueError(
            f"pack_weight: codes must be uint8 of shape [{p.n}, {row_bytes}], got {type_name(packed.dtype)} of shape "
            f"{list(packed.shape)}"
        )
    if scales.numel() != count or scales.element_size() != size:
        raise ValueError(
            f"pack_weight: expected {count} scales of {size} bytes, got {scales.numel()} of {scales.element_size()}"
        )
    given = zero_points is not None
    fits = not given or (zero_points.numel() == count and zero_points.element_size() == 1)
    check(
        given == p.w.has_zero_point and fits,
        "pack_weight: zero points must be given exactly when the spec has them, one byte per scale",
    )


def check_layout(p: TritonPlan, weight: torch.Tensor) -> None:
    """What restore_weight takes."""
    wanted = p.layout.bytes
    if weight.numel() != wanted or not weight.is_contiguous():
        raise ValueError(
            f"restore_weight: expected {wanted} contiguous bytes on {_place(weight)}, got {weight.numel()}"
        )


def check_codes(codes: torch.Tensor, op: str) -> None:
    if codes.dtype != torch.uint8 or codes.dim() != 2:
        raise ValueError(
            f"{op}: codes must be uint8 (rows, K), got {type_name(codes.dtype)} of shape {list(codes.shape)}"
        )


def check_bits(bits: int) -> None:
    check(1 <= bits <= 8, f"bits must be 1 to 8, got {bits}")


def check_packed(packed: torch.Tensor, bits: int, k: int) -> None:
    check_bits(bits)
    wanted = -(-k * bits // 8)
    if packed.dtype != torch.uint8 or packed.dim() != 2 or packed.shape[1] != wanted:
        raise ValueError(
            f"unpack: K={k} at {bits} bits takes rows of {wanted} uint8 bytes, got {type_name(packed.dtype)} of shape "
            f"{list(packed.shape)}"
        )


def operand_bytes(record: torch.Tensor) -> bytes:
    """An operand record's bytes."""
    fits = record.device.type == "cpu" and record.dtype == torch.uint8 and record.is_contiguous()
    check(
        fits and record.numel() == OPERAND.itemsize,
        "the operand tensor is not an operand record: make it with minifloat.ops.records.operand_record",
    )
    return record.numpy().tobytes()


def groups_of(group: int, k: int) -> int:
    """How many scales a row of k has. group: their size, 0 for one."""
    check(not group or k % group == 0, f"K={k} is not a multiple of the group size {group}")
    return k // group if group else 1


def check_finite(p: TritonPlan, x: torch.Tensor, scales: torch.Tensor) -> None:
    """Every scale of a row that holds NaN or infinity is NaN; a format without NaN cannot go on from there."""
    if p.encode.nan_code >= 0 or not scales.isnan().any():
        return
    row, column = (~torch.isfinite(x)).nonzero()[0].tolist()
    raise ValueError(
        f"linear: x holds {x[row, column].item()} at row {row}, column {column}, and the activation format has no NaN"
    )


def check_width(codes: torch.Tensor, bits: int) -> None:
    """That every code fits."""
    beyond = (codes >> bits).nonzero() if bits < 8 else ()
    if len(beyond):
        row, column = beyond[0].tolist()
        code = codes[row, column].item()
        raise ValueError(f"pack: code {code} at ({row}, {column}) does not fit in {bits} bits")
