"""A quantized matrix in canonical storage: bit-packed codes, scales as stored, zero points."""

from __future__ import annotations

import numpy as np
import torch

from . import emulator
from .formats import Format, QuantSpec
from .packing import packed_bytes

STORED_SCALES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "e8m0fnu": torch.uint8,  # the code: biased exponent
    "e4m3fn": torch.uint8,  # the code
}


class QTensor:
    """A quantized (N, K) matrix.

    Attributes:
        spec: element format and where scales live.
        shape: (N, K).
        packed: uint8, (N, ceil(K * bits / 8)): codes, little-endian along K.
        scale_data: scales as stored, (N, groups) or (1, 1): float32, bfloat16, or uint8 codes of e8m0fnu / e4m3fn.
        zero_points: uint8 codes of the element format, shape of scale_data; None without zero points.
        tensor_scale: float32, 0-d: second level of e4m3fn scales; None otherwise.
    Raises:
        ValueError: a part is missing, superfluous, or of the wrong type or shape, or a value is out of range.
    """

    def __init__(self, spec, shape, packed, scale_data, zero_points=None, tensor_scale=None):
        self.spec = QuantSpec.parse(spec)
        self.shape = (int(shape[0]), int(shape[1]))
        self.packed, self.scale_data = packed, scale_data
        self.zero_points, self.tensor_scale = zero_points, tensor_scale
        self._prepared = {}
        self._check()

    def _check(self) -> None:
        n, k = self.shape
        spec, bits = self.spec, self.spec.format.bits
        scales = (1, 1) if spec.granularity == "tensor" else (n, spec.groups(k))
        _check_part("codes", self.packed, torch.uint8, (n, packed_bytes(k, bits)))
        _check_part("scales", self.scale_data, STORED_SCALES[spec.scale_format], scales)
        for name, part, wanted, dtype, shape in (
            ("zero points", self.zero_points, spec.zero_point, torch.uint8, scales),
            ("tensor scale", self.tensor_scale, spec.scale_format == "e4m3fn", torch.float32, ()),
        ):
            if (part is not None) != wanted:
                raise ValueError(f"QTensor: {spec} {'needs' if wanted else 'has no'} {name}")
            if wanted:
                _check_part(name, part, dtype, shape)
        self._check_codes()
        bad = ~torch.isfinite(self.scales)
        if self.tensor_scale is not None and not torch.isfinite(self.tensor_scale):
            raise ValueError(f"QTensor: the tensor scale is {self.tensor_scale.item()}, it must be finite")
        if bad.any():
            at = tuple(bad.nonzero()[0].tolist())
            raise ValueError(f"QTensor: the scale at {at} is {self.scales[at].item()}, it must be finite")

    def _check_codes(self) -> None:
        f = self.spec.format
        if f.is_number.all():
            return  # every code is a number
        numbers = torch.from_numpy(f.is_number.copy()).to(self.packed.device)
        bad = ~numbers[self.codes.long()]
        if bad.any():
            at = tuple(bad.nonzero()[0].tolist())
            raise ValueError(f"QTensor: code {int(self.codes[at])} at {at} is not a number in {f}")

    @property
    def codes(self) -> torch.Tensor:
        """uint8, (N, K): one code per element."""
        return torch.ops.minifloat.unpack(self.packed, self.spec.format.bits, self.shape[1])

    @property
    def scales(self) -> torch.Tensor:
        """float32, (N, groups) or (1, 1): decoded, without the second-level scale."""
        return decode_scales(self.scale_data, self.spec)

    @property
    def nbytes(self) -> int:
        """Bytes of codes, scales and zero points (one code each, packed)."""
        bits = self.scale_data.numel() * self.spec.scale_bits
        if self.zero_points is not None:
            bits += self.zero_points.numel() * self.spec.format.bits
        return self.packed.numel() + -(-bits // 8) + (4 if self.tensor_scale is not None else 0)

    @property
    def bits_per_value(self) -> float:
        """Stored bits per element, scales and zero points included."""
        return 8 * self.nbytes / max(self.shape[0] * self.shape[1], 1)

    def dequantize(self) -> torch.Tensor:
        """float32, (N, K): (value - zero point) * scale, rounded once."""
        from .ops.records import operand_record

        return torch.ops.minifloat.dequantize(
            self.codes, self.scales, self._zero_point_values(), self._tensor_scale(), operand_record(self.spec)
        )

    def as_quantized(self) -> emulator.Quantized:
        """The same matrix as the emulator holds it."""
        points = self._zero_point_values()
        return emulator.Quantized(
            self.spec,
            self.codes.cpu().numpy(),
            self.scales.cpu().numpy(),
            None if points is None else points.cpu().numpy().astype(np.int64),
            None if self.tensor_scale is None else np.float32(self.tensor_scale.item()),
        )

    def prepared(self, activation: QuantSpec | None) -> tuple[torch.Tensor, torch.Tensor]:
        """ops.prepare, kept for the next call."""
        from .ops import prepare

        if activation not in self._prepared:
            self._prepared[activation] = prepare(self, activation)
        return self._prepared[activation]

    def __repr__(self) -> str:
        return f"QTensor({self.spec}, shape={self.shape}, {self.bits_per_value:.3g} bits per value)"

    def __getstate__(self):
        return {**self.__dict__, "_prepared": {}}  # layouts are made again where they are needed

    def _zero_point_values(self) -> torch.Tensor | None:
        return None if self.zero_points is None else decode_codes(self.zero_points, self.spec.format)

    def _tensor_scale(self) -> float:
        return 1.0 if self.tensor_scale is None else self.tensor_scale.item()


def quantize(w: torch.Tensor, spec: str | QuantSpec) -> QTensor:
    """Quantize a matrix (N, K) of float32, bfloat16 or float16.

    Raises:
        ValueError: w is not a matrix of these types, holds NaN or infinity, or K does not fit the groups.
    """
    spec = QuantSpec.parse(spec)
    w = finite_matrix(w, "quantize")
    spec.groups(w.shape[1])
    codes, scales, zero_points, tensor_scale = _round(w, spec)
    if spec.granularity == "tensor":
        scales, zero_points = scales[:1], None if zero_points is None else zero_points[:1]
        if w.shape[0] == 0:
            scales = torch.ones(1, 1)
    return QTensor(
        spec,
        tuple(w.shape),
        torch.ops.minifloat.pack(codes, spec.format.bits),
        store_scales(scales, spec.scale_format),
        None if zero_points is None else _codes_of_integers(zero_points, spec.format.bits),
        tensor_scale if spec.scale_format == "e4m3fn" else None,
    )


def finite_matrix(w: torch.Tensor, caller: str) -> torch.Tensor:
    """float32 (N, K): a weight as it is to be quantized.

    Raises:
        ValueError: not a matrix of float32, bfloat16 or float16, or it holds NaN or infinity.
    """
    if w.dim() != 2 or w.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise ValueError(
            f"{caller}: expected a matrix (N, K) of float32, bfloat16 or float16, got {w.dtype}, shape {tuple(w.shape)}"
        )
    w = w.detach().float()
    bad = ~torch.isfinite(w)
    if bad.any():
        at = tuple(bad.nonzero()[0].tolist())
        raise ValueError(f"{caller}: w holds {w[at].item()} at {at}; weights must be finite")
    return w


def _round(w: torch.Tensor, spec: QuantSpec):
    """Codes (N, K), float32 scales and zero points (None without), (N, groups), second-level scale (0-d)."""
    if spec.scale_rule == "mse":  # a search over candidates, made once per weight: the reference itself does it
        q = emulator.quantize(w, spec)
        points = None if q.zero_points is None else torch.from_numpy(q.zero_points)
        scale = None if q.tensor_scale is None else torch.tensor(q.tensor_scale)
        return torch.from_numpy(q.codes), torch.from_numpy(q.scales), points, scale
    from .ops.records import operand_record

    codes, scales, zero_points, tensor_scale = torch.ops.minifloat.quantize(w, operand_record(spec))
    return codes, scales, zero_points if spec.zero_point else None, tensor_scale


def store_scales(scales: torch.Tensor, scale_format: str) -> torch.Tensor:
    """Scales that the format holds exactly, as stored."""
    if scale_format == "e8m0fnu":
        return (scales.view(torch.int32) >> 23).to(torch.uint8)
    if scale_format == "e4m3fn":
        return Format.parse("e4m3fn").encode(scales)
    return scales.to(STORED_SCALES[scale_format])


def decode_scales(stored: torch.Tensor, spec: QuantSpec) -> torch.Tensor:
    """float32: the scales, without the second-level one."""
    return stored.float() if stored.dtype != torch.uint8 else decode_codes(stored, Format.parse(spec.scale_format))


def decode_codes(codes: torch.Tensor, f: Format) -> torch.Tensor:
    """float32: the values of codes."""
    return torch.from_numpy(f.values.astype(np.float32)).to(codes.device)[codes.long()]


def _codes_of_integers(values: torch.Tensor, bits: int) -> torch.Tensor:
    return (values.to(torch.int32) & ((1 << bits) - 1)).to(torch.uint8)


def _check_part(name: str, part: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if part.dtype != dtype or tuple(part.shape) != shape:
        raise ValueError(
            f"QTensor: {name} must be {dtype} of shape {shape}, got {part.dtype} of shape {tuple(part.shape)}"
        )
