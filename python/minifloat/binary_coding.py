"""Binary-coded weights: a matrix as a sum of q planes of -1 and +1, each with scales of its own.

The planes are one QTensor of 1-bit codes with q * K columns, plane i in columns i * K to (i + 1) * K - 1. So the
product with x is mf.linear of x repeated q times, on every backend, and its numeric contract is the one that is there.

Source: Park et al., "LUT-GEMM: Quantized Matrix Multiplication based on LUTs for Efficient Inference in Large-Scale
    Generative Language Models" (nuQmm), section 3; the scales as in binary_descent.py.
"""

from __future__ import annotations

import torch

from .binary_descent import SortedGroups, best_scales, levels
from .formats import QuantSpec
from .formats.quant_spec import SCALE_ALIASES, SCALE_FORMATS
from .qtensor import QTensor, finite_matrix, store_scales

MAX_PLANES = 8
ITERATIONS = 20
SMALLEST, LARGEST = 2.0**-126, 3.3895314e38  # a scale is a normal float32 and bfloat16
CHUNK = 1 << 22  # elements at a time: some 200 MB


def binary_spec(k: int, group: int | None = None, scale: str = "bfloat16") -> QuantSpec:
    """The spec of the planes of a weight with K inputs: a scale for each group of a plane's row, or for each row of it.

    Raises:
        ValueError: unknown scale format, or K is not a multiple of the group; names what would fit.
    """
    if scale not in SCALE_ALIASES:
        raise ValueError(f"scale format {scale!r} must be one of {', '.join(SCALE_FORMATS)}")
    if not k:
        raise ValueError("a weight without inputs (K=0) has nothing to code")
    spec = QuantSpec.parse(f"binary-g{k if group is None else group}-{scale}")
    if k % spec.group_size:
        fits = [g for g in range(1, k + 1) if k % g == 0]
        near = [max(g for g in fits if g < group), min((g for g in fits if g > group), default=k)]
        either = " or ".join(map(str, sorted({*near})))
        raise ValueError(f"K={k} is not a multiple of the group {group}: take {either}, or None for one scale a row")
    return spec


def check_planes(planes: int) -> int:
    """planes, if a weight can have so many.

    Raises:
        ValueError: it is not 1 to 8.
    """
    if type(planes) is not int or not 1 <= planes <= MAX_PLANES:
        raise ValueError(f"a binary-coded weight has 1 to {MAX_PLANES} planes, got {planes!r}")
    return planes


def check_binary(spec: QuantSpec, k: int) -> None:
    """Raise ValueError unless this can be the spec of the planes of a weight with K inputs."""
    if spec.format.name != "binary" or spec.group_size is None:
        raise ValueError(
            f"the planes of a binary-coded weight are 'binary' with a group, such as binary-g128-bf16, not {spec}"
        )
    if k % spec.group_size:
        raise ValueError(f"{spec}: K={k} is not a multiple of the group size {spec.group_size}")


@torch.no_grad()
def binary_code(
    w: torch.Tensor,
    planes: int,
    group: int | None = None,
    scale: str = "bfloat16",
    iterations: int = ITERATIONS,
    importance: torch.Tensor | None = None,
) -> QTensor:
    """w as a sum of planes, by alternating least squares of scales and codes.

    Args:
        w: (N, K), float32, bfloat16 or float16.
        planes: q, 1 to 8.
        group: elements of a row that share q scales; None: all of the row.
        scale: format of the scales.
        iterations: rounds at most; more never raise the squared error of a group.
        importance: (K,) or (N, K), weights of the squared errors, not negative; None: all equal.
    Returns:
        (N, q * K), in every group the largest scale in plane 0, the smallest in the last.
    Raises:
        ValueError: w is not such a matrix or not finite, K is not a multiple of the group, or there is no such scale.
    """
    w, q = finite_matrix(w, "binary_code"), check_planes(planes)
    n, k = w.shape
    spec = binary_spec(k, group, scale)
    if type(iterations) is not int or iterations < 0:
        raise ValueError(f"binary_code: iterations is {iterations!r}, expected 0 or more")
    size, store = spec.group_size, Store(spec, w)
    blocks = w.reshape(-1, size)
    weights = None if importance is None else importance.to(w).expand_as(w).reshape(-1, size)
    alpha = blocks.new_empty(len(blocks), q)
    codes = torch.empty_like(blocks, dtype=torch.uint8)
    step = max(1, CHUNK // size)
    for first in range(0, len(blocks), step):
        part = slice(first, first + step)
        groups = SortedGroups.of(blocks[part], None if weights is None else weights[part])
        found = best_scales(groups, q, iterations, store.rounded)
        alpha[part], codes[part] = found, nearest_codes(blocks[part], found)
    return store.qtensor(alpha.reshape(n, k // size, q), codes.reshape(n, k))


def binary_decode(q: QTensor, planes: int) -> torch.Tensor:
    """float32 (N, K): the sum of the planes, rounded once; q: as binary_code returns it."""
    signs = q.codes.double().mul_(2).sub_(1)
    scaled = signs.unflatten(1, (q.scales.shape[1], -1)).mul_(q.scales.double()[..., None])
    real = sum(scaled.flatten(1).unflatten(1, (planes, -1)).unbind(1))
    return (real if q.tensor_scale is None else real * q.tensor_scale.double()).float()


def nearest_codes(blocks: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """uint8 (groups, G): bit i of a weight's code is set where plane i is +1 in the nearest level.

    Args:
        blocks: (groups, G). alpha: float64 (groups, q).
    """
    _, codes, middles = levels(alpha)
    return codes.gather(1, torch.searchsorted(middles, blocks.double(), right=True)).to(torch.uint8)


class Store:
    """How scales are stored.

    Attributes:
        tensor_scale: float32, 0-d: second level of e4m3fn scales, so that none is above the largest magnitude; else 1.
    """

    def __init__(self, spec: QuantSpec, w: torch.Tensor):
        self.spec = spec
        self.tensor_scale = torch.ones((), device=w.device)
        if spec.scale_format == "e4m3fn" and w.numel():
            self.tensor_scale = (w.abs().max() / 448).clamp(min=SMALLEST)

    def rounded(self, alpha: torch.Tensor) -> torch.Tensor:
        """float64: the nearest of what can be stored; alpha: float64, not negative."""
        alpha = alpha.clamp(SMALLEST, LARGEST)
        if self.spec.scale_format == "e8m0fnu":
            mantissa, exponent = torch.frexp(alpha)  # alpha = mantissa * 2**exponent, mantissa 0.5 to 1
            nearest = exponent - (mantissa < 0.75).to(exponent.dtype)
            return torch.ldexp(torch.ones_like(alpha), nearest).clamp(max=2.0**127)
        if self.spec.scale_format == "e4m3fn":
            return self._first_level(alpha).double() * self.tensor_scale.double()
        return alpha.to(torch.bfloat16 if self.spec.scale_format == "bfloat16" else torch.float32).double()

    def _first_level(self, alpha: torch.Tensor) -> torch.Tensor:
        """float32: what e4m3fn holds of alpha; the same for what `rounded` makes of alpha."""
        return (alpha.float() / self.tensor_scale).clamp(2.0**-9, 448).to(torch.float8_e4m3fn).float()

    def qtensor(self, alpha: torch.Tensor, codes: torch.Tensor) -> QTensor:
        """alpha: float32 (N, groups, q), as rounded. codes: uint8 (N, K), bit i for plane i."""
        (n, k), q = codes.shape, alpha.shape[-1]
        planes = torch.cat([(codes >> i) & 1 for i in range(q)], 1)
        scales, second = alpha.permute(0, 2, 1).flatten(1).contiguous(), None
        if self.spec.scale_format == "e4m3fn":
            scales, second = self._first_level(scales), self.tensor_scale
        stored = store_scales(scales, self.spec.scale_format)
        return QTensor(self.spec, (n, q * k), torch.ops.minifloat.pack(planes, 1), stored, None, second)
