"""The package of Triton kernels, imported when they are first needed, or how to get Triton."""

from __future__ import annotations

from functools import cache


@cache
def kernels():
    """minifloat.kernels.triton with its modules.

    Raises:
        ModuleNotFoundError: Triton is not installed; says how to install it.
    """
    try:
        from ..kernels import triton
        from ..kernels.triton import (  # noqa: F401
            configs,
            gemm_exact,
            gemm_float,
            gemm_scaled,
            gemv_float,
            operand,
            pack,
            quantize,
        )
    except ModuleNotFoundError as error:
        if error.name != "triton":
            raise
        raise ModuleNotFoundError(
            "CUDA tensors without compiled CUDA kernels need Triton, which is not installed: pip install triton",
            name="triton",
        ) from error
    return triton
