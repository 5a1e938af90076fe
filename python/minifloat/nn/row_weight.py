"""A quantized weight in canonical storage, of which single rows are decoded: what QEmbedding holds."""

from __future__ import annotations

import torch

from ..ops.records import operand_record
from ..qtensor import STORED_SCALES, QTensor, decode_codes, decode_scales
from .prepared import PreparedWeight

ALIGNMENT = 16  # bytes: parts are viewed in their own dtype


class RowWeight(PreparedWeight):
    """As PreparedWeight, but the layout is the canonical tensors' bytes one after the other, each part aligned."""

    def _lay_out(self, q: QTensor) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [part.contiguous().reshape(-1).view(torch.uint8) for part in self._parts(q)]
        padded = [torch.nn.functional.pad(part, (0, -part.numel() % ALIGNMENT)) for part in parts]
        plan = torch.tensor([part.numel() for part in padded])  # where the next part begins
        return torch.cat(padded), plan

    def _restore(self) -> QTensor:
        parts = [None if part is None else part.clone() for part in self._views()]
        return QTensor(self.spec, self.shape, *parts)

    def rows(self, index: torch.Tensor) -> torch.Tensor:
        """float32 (len(index), K): these rows, dequantized.

        Raises:
            IndexError: an index is negative or not below N.
        """
        packed, scales, points, second = self._views()
        every = self.spec.granularity == "tensor"
        scales = scales if every else scales.index_select(0, index)
        scales = decode_scales(scales, self.spec)
        if points is not None:
            points = decode_codes(points if every else points.index_select(0, index), self.spec.format)
        codes = torch.ops.minifloat.unpack(packed.index_select(0, index), self.spec.format.bits, self.shape[1])
        factor = 1.0 if second is None else second.item()
        return torch.ops.minifloat.dequantize(codes, scales, points, factor, operand_record(self.spec))

    def _parts(self, q: QTensor) -> list[torch.Tensor]:
        return [part for part in (q.packed, q.scale_data, q.zero_points, q.tensor_scale) if part is not None]

    def _views(self) -> tuple[torch.Tensor | None, ...]:
        """packed codes, scales, zero points and second-level scale within the layout; None where there is none."""
        n, k = self.shape
        bits = self.spec.format.bits
        scales = (1, 1) if self.spec.granularity == "tensor" else (n, self.spec.groups(k))
        forms = [(torch.uint8, (n, -(-k * bits // 8))), (STORED_SCALES[self.spec.scale_format], scales)]
        forms.append((torch.uint8, scales) if self.spec.zero_point else None)
        forms.append((torch.float32, ()) if self.spec.scale_format == "e4m3fn" else None)
        out, begins, part = [], [0, *self.plan.cumsum(0).tolist()], 0
        for form in forms:
            if form is None:
                out.append(None)
                continue
            dtype, shape = form
            length = torch.Size(shape).numel() * dtype.itemsize
            out.append(self.layout[begins[part] : begins[part] + length].view(dtype).reshape(shape))
            part += 1
        return tuple(out)
