"""The Triton backend: its ops, its state, and its place under the CUDA key where no compiled kernels took it.

Nothing here imports Triton before the first call: minifloat works without it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from functools import cache
from importlib.metadata import version

import numpy as np
import torch

from ..kernels.triton import configs, scaled  # need no Triton
from ..kernels.triton.configs import GEMV_ROWS, Gpu, Problem, kind_of, target_of
from . import fakes
from .records import OPERAND, plan_record
from .triton_checks import (
    as_rows,
    check,
    check_bias,
    check_bits,
    check_codes,
    check_finite,
    check_layout,
    check_packed,
    check_storage,
    check_weight,
    check_width,
    groups_of,
    operand_bytes,
)
from .triton_kernels import kernels
from .triton_plan import FLOAT8, X_TYPES, TritonPlan, plan_of

RAW_SCALES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # others: uint8 codes


def interpreting() -> bool:
    """Whether kernels are interpreted on the CPU. Triton reads the variable when it is imported."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def state() -> str:
    """ "available (...)", "interpreter (CPU)", or why the backend cannot be used."""
    if importlib.util.find_spec("triton") is None:
        return "not installed: pip install triton"
    if interpreting():
        return "interpreter (CPU)"
    if not torch.cuda.is_available():
        return "without a GPU here; TRITON_INTERPRET=1 runs it on the CPU, slowly"
    return f"available (triton {version('triton')}, {torch.cuda.get_device_name()})"


def prepare(q, activation) -> tuple[torch.Tensor, torch.Tensor]:
    """ops.prepare for this backend: the weight in its layout on q's device, and the plan on the CPU."""
    tensor_scale = 1.0 if q.tensor_scale is None else float(q.tensor_scale)
    record = plan_record(q.spec, activation, q.shape, tensor_scale)
    return pack_weight(q.packed, q.scale_data, q.zero_points, record), record


def prepared(q, activation) -> tuple[torch.Tensor, torch.Tensor]:
    """prepare, kept on q for the next call."""
    key = "triton", activation
    if key not in q._prepared:
        q._prepared[key] = prepare(q, activation)
    return q._prepared[key]


def _on(x: torch.Tensor):
    """Triton launches on the current device: make it x's."""
    if x.device.type == "cuda":
        return torch.cuda.device(x.device)
    if not interpreting():
        raise ValueError(f"the triton backend is {state()}, and x is on {x.device}")
    return contextlib.nullcontext()


@cache
def gpu_of(device: torch.device) -> Gpu:
    """What decides the tile shapes there."""
    if device.type != "cuda":
        return Gpu("", "", 0)
    properties = torch.cuda.get_device_properties(device)
    capability = properties.major, properties.minor
    targets = ("gfx942", "") if torch.version.hip else (target_of(capability), scaled.target_of(capability))
    return Gpu(properties.name, targets[0], getattr(properties, "shared_memory_per_block_optin", 0), targets[1])


def multiplied_type(p: TritonPlan, m: int, dtype: torch.dtype, gpu: Gpu) -> torch.dtype:
    """The type in which x is multiplied: 8-bit floats as they are where that can be, else as bfloat16 (exact)."""
    return torch.bfloat16 if dtype in FLOAT8 and not scaled.multiplies(p.scaled_format, m, gpu) else dtype


def problem_of(p: TritonPlan, m: int, dtype: torch.dtype) -> Problem:
    """What is to be multiplied, as the configs are chosen by it. dtype: of multiplied_type."""
    if dtype in FLOAT8:
        return Problem("gemm_scaled", p.w.bits, "plain", p.w.group, FLOAT8[dtype], m, p.n, p.k)
    if p.exact:
        kind = kind_of(p.fold.aligned, p.fold.products)
        return Problem("gemm_exact", p.w.bits, kind, p.fold.length, X_TYPES[dtype], m, p.n, p.k)
    if m <= GEMV_ROWS:
        return Problem("gemv_float", p.w.bits, kind_of(p.w.aligned), p.w.group, X_TYPES[dtype], m, p.n, p.k)
    parts, _ = p.parts[dtype]
    x = X_TYPES[dtype] if parts else "float32"
    return Problem("gemm_float", p.w.bits, kind_of(p.w.aligned, parts), p.w.group, x, m, p.n, p.k)


def linear(x, weight, plan, bias, out_features):
    """minifloat::linear: see csrc/linear.cpp, and csrc/cuda.cpp for 8-bit floats, whose y is bfloat16."""
    p = plan_of(plan)
    check_weight(p, weight, n=out_features)
    rows = as_rows(x, p.k, "linear", weight.device)
    if bias is not None:
        check_bias(p, bias, x)
        bias = bias.float().contiguous()
    fold = p.fold if p.exact else None
    with _on(x):
        rows = rows.to(multiplied_type(p, rows.shape[0], rows.dtype, gpu_of(x.device)))
        if rows.shape[0] == 0 or p.n == 0 or p.k == 0:
            y_type = torch.bfloat16 if x.dtype in FLOAT8 else x.dtype
            y = rows.new_zeros(rows.shape[0], p.n, dtype=y_type) + (0 if bias is None else bias.to(y_type))
        elif p.exact:
            y = _exact(p, rows, weight, bias, fold)
        else:
            y = _float(p, rows, weight, bias)
    return y if x.dim() == 2 else y.reshape(*x.shape[:-1], p.n)


def _float(p: TritonPlan, x, weight, bias):
    problem = problem_of(p, x.shape[0], x.dtype)
    config = configs.choose(problem, gpu_of(x.device))
    if problem.kernel == "gemm_scaled":
        formats = p.scaled_format, FLOAT8[x.dtype]
        return kernels().gemm_scaled.linear(x, weight, bias, p.w, *formats, p.layout, p.n, config)
    common = (x, weight, bias, p.table(x.device), p.w, p.layout, p.n)
    if problem.kernel == "gemv_float":
        return kernels().gemv_float.linear(*common, config)
    return kernels().gemm_float.linear(*common, p.parts[x.dtype], config)


def _exact(p: TritonPlan, x, weight, bias, fold):
    table, length = p.table(x.device, "activation"), fold.length or p.k
    digits = kernels().quantize.quantize_digits(x, p.encode, p.a_group, fold.a_digits, table, length, fold.sums)
    if not x.is_cuda:  # on a GPU this would wait for the device: there the NaN of the scale reaches the result
        check_finite(p, x, digits.scales)
    config = configs.choose(problem_of(p, x.shape[0], x.dtype), gpu_of(x.device))
    common = (weight, bias, p.table(x.device), p.w, p.layout, p.n)
    return kernels().gemm_exact.linear(digits, *common, p.k, fold, x.dtype, config)


def linear_backward(grad, weight, plan, in_features):
    """minifloat::linear_backward: grad @ w with w decoded."""
    p = plan_of(plan)
    check_weight(p, weight, k=in_features)
    rows = as_rows(grad, p.n, "linear_backward", weight.device).float()
    with _on(grad):
        w = _dequantized(p, weight)
    return (rows @ w).to(grad.dtype).reshape(*grad.shape[:-1], p.k)


def _dequantized(p: TritonPlan, weight: torch.Tensor) -> torch.Tensor:
    """float32 (N, K)."""
    pack, table = kernels().pack, p.table(weight.device)

    def looked_up(start, codes):
        return table[start : start + 256][codes.long()].contiguous()

    scales = pack.scales_of(weight, p.n, p.k, p.w, RAW_SCALES.get(p.w.scale_kind, torch.uint8))
    if p.w.scale_kind == "power_of_two":  # code 0 is 2**-127, a subnormal
        scales = torch.where(scales == 0, 1 << 22, scales.int() << 23).int().view(torch.float32)
    elif p.w.scale_kind == "two_level":
        scales = looked_up(kernels().operand.SCALE_VALUES, scales)
    points = None
    if p.w.has_zero_point:
        points = looked_up(kernels().operand.VALUES, pack.points_of(weight, p.n, p.k, p.w))
    second = torch.full((1,), float(p.weight["tensor_scale"]), device=weight.device)
    codes = pack.codes_of(weight, p.n, p.k, p.w)
    return kernels().quantize.dequantize(codes, scales.float().contiguous(), points, second, table)


def pack_weight(packed, scales, zero_points, plan):
    """minifloat::pack_weight: canonical storage -> the layout of kernels/triton/pack.py."""
    p = plan_of(plan)
    with _on(packed):
        check_storage(p, packed, scales, zero_points)
        return kernels().pack.pack_weight(packed.contiguous(), scales, zero_points, p.n, p.k, p.w)


def restore_weight(weight, plan):
    """minifloat::restore_weight: packed codes, scales as raw bytes, zero points (empty without)."""
    p = plan_of(plan)
    raw = RAW_SCALES.get(p.w.scale_kind, torch.uint8)
    check_layout(p, weight)
    with _on(weight):
        packed = kernels().pack.pack(kernels().pack.codes_of(weight, p.n, p.k, p.w), p.w.bits)
        scales = kernels().pack.scales_of(weight, p.n, p.k, p.w, raw)
        points = kernels().pack.points_of(weight, p.n, p.k, p.w)
    if p.weight["granularity"] == 0:
        scales, points = scales[:1], points[:1]
    # clone and not contiguous(), which leaves odd strides on dimensions of size 1
    raw_bytes = scales.clone(memory_format=torch.contiguous_format).view(torch.uint8)
    return packed, raw_bytes, points.contiguous()


def pack(codes, bits):
    """minifloat::pack. On a GPU a code that does not fit loses its high bits: finding it would wait for the device."""
    check_bits(bits)
    check_codes(codes, "pack")
    if not codes.is_cuda:
        check_width(codes, bits)
    with _on(codes):
        return kernels().pack.pack(codes.contiguous(), bits)


def unpack(packed, bits, k):
    """minifloat::unpack."""
    check_packed(packed, bits, k)
    with _on(packed):
        return kernels().pack.unpack(packed.contiguous(), bits, k)


@cache
def _operand(data: bytes, device: torch.device):
    record = np.frombuffer(data, OPERAND)[0]
    table = torch.from_numpy(kernels().operand.table_of(record)).to(device)
    return kernels().operand.encode_of(record), int(record["group_size"]), table


def quantize(x, operand, scales=None, zero_points=None, tensor_scale=1.0):
    """minifloat::quantize: codes, float32 scales and zero points (M, groups), second level (0-d)."""
    encode, group, table = _operand(operand_bytes(operand), x.device)
    check(x.dim() == 2, f"quantize: x must be (rows, K), got shape {list(x.shape)}")
    groups = groups_of(group, x.shape[1])
    rows = as_rows(x, x.shape[1], "quantize")
    given = None
    if scales is not None:
        spread = [s.float().expand(x.shape[0], groups).contiguous() for s in (scales, zero_points) if s is not None]
        points = spread[1] if len(spread) == 2 else torch.zeros_like(spread[0])
        given = (spread[0], points, torch.full((1,), tensor_scale, device=x.device))
    with _on(x):
        codes, scales, points, second = kernels().quantize.quantize_codes(rows, encode, group, table, given)
    return codes, scales, points if encode.has_zero_point else points.new_empty(0), second[0]


def dequantize(codes, scales, zero_points, tensor_scale, operand):
    """minifloat::dequantize: float32 (M, K)."""
    _, group, table = _operand(operand_bytes(operand), codes.device)
    check_codes(codes, "dequantize")
    groups = groups_of(group, codes.shape[1])
    spread = [
        None if s is None else s.float().expand(codes.shape[0], groups).contiguous() for s in (scales, zero_points)
    ]
    second = torch.full((1,), tensor_scale, device=codes.device)
    with _on(codes):
        return kernels().quantize.dequantize(codes.contiguous(), *spread, second, table)


def _setup_context(ctx, inputs, output):
    x, weight, plan, bias, _ = inputs
    ctx.save_for_backward(weight, plan)
    ctx.in_features = x.shape[-1]
    ctx.bias_dtype = None if bias is None else bias.dtype


def _backward(ctx, grad):
    weight, plan = ctx.saved_tensors
    grad_x = grad_bias = None
    if ctx.needs_input_grad[0]:
        grad_x = torch.ops.minifloat.triton_linear_backward(grad, weight, plan, ctx.in_features)
    if ctx.needs_input_grad[3]:
        grad_bias = grad.reshape(-1, grad.shape[-1]).sum(0).to(ctx.bias_dtype)
    return grad_x, None, None, grad_bias, None


def _register() -> torch.library.Library:
    """minifloat::triton_linear for whoever asks for this backend, and the CUDA key of the ops that have no kernel."""
    library = torch.library.Library("minifloat", "FRAGMENT")
    library.define("triton_linear(Tensor x, Tensor weight, Tensor plan, Tensor? bias, SymInt out_features) -> Tensor")
    library.define("triton_linear_backward(Tensor grad, Tensor weight, Tensor plan, SymInt in_features) -> Tensor")
    for key in ("CPU", "CUDA"):
        library.impl("triton_linear", linear, key)
        library.impl("triton_linear_backward", linear_backward, key)
    torch.library.register_fake("minifloat::triton_linear", fakes.linear, lib=library)
    torch.library.register_fake("minifloat::triton_linear_backward", fakes.linear_backward, lib=library)
    torch.library.register_autograd("minifloat::triton_linear", _backward, setup_context=_setup_context, lib=library)
    for op in (linear, linear_backward, pack_weight, restore_weight, pack, unpack, quantize, dequantize):
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"minifloat::{op.__name__}", "CUDA"):
            library.impl(op.__name__, op, "CUDA")
    return library


_library = _register()  # kept: registrations end with it
