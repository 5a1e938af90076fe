"""mf.linear: a quantized matrix times activations, on the backend of their device."""

from __future__ import annotations

import importlib
import importlib.util
from functools import cache

import torch

from . import emulator
from .formats import QuantSpec
from .qtensor import QTensor


def linear(x, q: QTensor, bias=None, activation: str | QuantSpec | None = None, backend: str | None = None):
    """y = x @ w.T + bias, with w quantized, and x too if `activation` says how.

    Args:
        x: (..., K), float32, bfloat16 or float16; on cuda and triton also float8_e4m3fn or float8_e5m2.
        q: the weight, (N, K).
        bias: (N,) or None; added in float32.
        activation: spec that x is quantized with on the fly (exact contract: the same bits on every backend), or None
            (float contract: any order of summation, within the bound of docs/numerics.md).
        backend: one of mf.backends(), or None for the one of x's device: "cpu"; "cuda", or "triton" where no CUDA
            kernels were built. "reference" is the emulator.
    Returns:
        (..., N), x's dtype, bfloat16 for float8 x. Gradients flow to x and bias, and torch.compile(fullgraph=True)
            takes the call with q as a constant of the graph, both except on the reference backend.
    Raises:
        ValueError: shapes, dtypes or devices do not fit, x is not finite and the activation format has no NaN, or the
            backend is not available.
    """
    if backend == "reference":
        return emulator.linear(x, q, bias, None if activation is None else QuantSpec.parse(activation))
    by_triton, weight, plan = _operands(q, activation, backend, x.device)
    if by_triton:
        return torch.ops.minifloat.triton_linear.default(x, weight, plan, bias, q.shape[0])
    return torch.ops.minifloat.linear.default(x, weight, plan, bias, q.shape[0])


def _operands(q: QTensor, activation, backend, device: torch.device) -> tuple[bool, torch.Tensor, torch.Tensor]:
    """Whether Triton's op is meant, and the weight and the plan that the op takes, kept for the next call.

    Everything that is found out in Python is found here, so that torch.compile takes it as constants of the graph,
    guarded by the identity of q, and traces nothing but the op.
    """
    if not isinstance(activation, str | QuantSpec | None):
        QuantSpec.parse(activation)  # says what it should be; some other types have no hash for the key
    key = activation, backend, device
    if key not in q._prepared:
        q._prepared[key] = _prepare(q, activation, backend, device)
    return q._prepared[key]


# What torch.compiler.assume_constant_result sets; calling it would import Dynamo, and Triton with it.
_operands._dynamo_marked_constant = True


def _prepare(q: QTensor, activation, backend, device: torch.device) -> tuple[bool, torch.Tensor, torch.Tensor]:
    """What linear says it raises about all but x itself, and what _operands returns."""
    spec = None if activation is None else QuantSpec.parse(activation)
    if backend is None:
        backend = _default_backend(device.type)
    if backend not in _usable():
        raise ValueError(
            f"linear: backend {backend!r} is {backends().get(backend, 'unknown')}; usable here: {', '.join(_usable())}"
        )
    if q.packed.device != device:
        raise ValueError(f"linear: x is on {device} but the weight is on {q.packed.device}")
    if spec is not None and spec.scale_rule != "absmax":
        raise ValueError(f"linear: activations are scaled by absmax at run time; drop '-{spec.scale_rule}'")
    if backend == "triton":
        from .ops import triton

        return True, *triton.prepared(q, spec)
    if backend != device.type:
        raise ValueError(f"linear: backend {backend!r} does not take tensors on {device}")
    return False, *q.prepared(spec)


def backends() -> dict[str, str]:
    """Each backend's name and its state here, e.g. {"cpu": "available (avx2)", ...}."""
    from . import ops
    from .ops import triton

    return {
        "cpu": f"available ({ops.isa()})",
        "cuda": _cuda_state(),
        "triton": triton.state(),
        "reference": "available",
    }


def _cuda_state() -> str:
    if importlib.util.find_spec(f"{__package__}.ops.cuda") is None:
        return "not built"
    return importlib.import_module(f"{__package__}.ops.cuda").state()


@cache
def _usable() -> tuple[str, ...]:
    """Names of the backends that can be called. Found once: none comes or goes while a process runs."""
    return tuple(name for name, state in backends().items() if state.startswith(("available", "interpreter")))


@cache
def _default_backend(device: str) -> str:
    """The backend of tensors on this type of device."""
    return "triton" if device == "cuda" and "cuda" not in _usable() else device
