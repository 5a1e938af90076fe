"""A plan record parsed for the Triton kernels, once for each plan tensor."""

from __future__ import annotations

from functools import cache, cached_property

import numpy as np
import torch
from torch.utils.weak import WeakTensorKeyDictionary

from .records import CARRIERS, MAGIC, PLAN, VERSION
from .triton_kernels import kernels

CARRIER_NAMES = {number: name for name, number in CARRIERS.items()}
CARRIER_NAMES[CARRIERS["int16_windows"]] = "float64"  # what the CPU has for some of those
X_TYPES = {torch.float32: "float32", torch.float16: "float16", torch.bfloat16: "bfloat16"}
FLOAT8 = {torch.float8_e4m3fn: "e4m3", torch.float8_e5m2: "e5m2"}  # and what tl.dot_scaled calls them
LARGEST_VALUE = 2.0**96
_plans = WeakTensorKeyDictionary()


class TritonPlan:
    """A plan record as the kernels take it, with its tables on each device that was asked for."""

    def __init__(self, record: np.void):
        from ..kernels.triton import operand, scaled

        self.n, self.k = int(record["n"]), int(record["k"])
        self.carrier = CARRIER_NAMES[int(record["carrier"])]
        self.weight, self.activation = record["weight"], record["activation"]
        self.exact = self.carrier != "float"
        self.w = operand.decode_of(self.weight, self.exact)
        if not self.exact and np.nanmax(np.abs(self.weight["values"])) > LARGEST_VALUE:
            raise ValueError(
                "the triton backend sums values before they are scaled, and this format's go beyond 2**96, where "
                "float32 sums overflow: use the cpu or reference backend"
            )
        self.scaled_format = "" if self.exact else scaled.format_of(self.weight, self.w)
        self.parts = {dtype: operand.parts_of(self.weight, name) for dtype, name in X_TYPES.items()}
        self.fold_length = int(record["fold"])
        if self.exact:
            self.encode = operand.encode_of(self.activation)
            self.a_group = int(self.activation["group_size"])
        self._unit = int(record["unit"])
        self._tables = {}

    @cached_property
    def layout(self):
        """pack.Layout."""
        return kernels().pack.layout_of(self.n, self.k, self.w)

    @property
    def scale_bytes(self) -> int:
        """Of one scale as stored."""
        from ..kernels.triton.operand import SCALE_BYTES

        return SCALE_BYTES[self.w.scale_kind]

    def table(self, device: torch.device, of: str = "weight") -> torch.Tensor:
        """operand.table_of on a device."""
        from ..kernels.triton.operand import table_of

        if (device, of) not in self._tables:
            self._tables[device, of] = torch.from_numpy(table_of(getattr(self, of))).to(device)
        return self._tables[device, of]

    @cached_property
    def fold(self):
        """operand.Fold.

        Raises:
            ValueError: more digits are needed than the kernels have.
        """
        from ..kernels.triton.operand import Fold

        centre, weight_digits = _digits_of(self.weight)
        a_digits = 1 if max(map(abs, _ends(self.activation, minus_point=True))) <= 127 else 2
        if self.activation["grid"].min() == -128 and not self.encode.has_zero_point:
            a_digits = 1
        if self.carrier not in ("int8", "int16") or weight_digits > 2 or not -126 <= self._unit <= 127:
            raise ValueError(
                "linear: the triton backend multiplies exactly with up to two int8 digits, but this weight and "
                f"activation need the {self.carrier} carrier (docs/numerics.md): use the cpu or reference backend, "
                "or no activation format"
            )
        return Fold(
            length=0 if self.fold_length == self.k else self.fold_length,
            weight_digits=weight_digits,
            a_digits=a_digits,
            centre=centre,
            sums=bool(centre or self.w.has_zero_point),
            a_group=self.a_group,
            a_two_level=self.encode.scale_kind == "two_level",
            product=2.0**self._unit,
        )


def _ends(operand: np.void, minus_point: bool = False) -> tuple[int, int]:
    """Smallest and largest grid integer of an operand."""
    numbers = operand["grid"][np.isfinite(operand["values"])]
    low, high = int(numbers.min()), int(numbers.max())
    return (low - high, high - low) if minus_point and operand["has_zero_point"] else (low, high)


def _digits_of(weight: np.void) -> tuple[int, int]:
    """Centre, and how many int8 digits hold grid integers minus the centre; 3 stands for more than two."""
    low, high = _ends(weight)
    if low >= -128 and high <= 127:
        return 0, 1
    if high - low <= 255:
        return low + 128, 1
    return 0, 2 if low >= -32768 and high <= 32639 else 3


@cache
def _parse(data: bytes) -> TritonPlan:
    record = np.frombuffer(data, PLAN)[0] if len(data) == PLAN.itemsize else None
    if record is None or record["magic"] != MAGIC or record["version"] != VERSION:
        raise ValueError(
            "the plan tensor is not a plan of this version of minifloat: make it with minifloat.ops.prepare"
        )
    return TritonPlan(record)


def _bytes_of(record: torch.Tensor) -> bytes:
    """Of the plan; none if it is no contiguous tensor of bytes on the CPU."""
    fits = record.device.type == "cpu" and record.dtype == torch.uint8 and record.is_contiguous()
    return record.numpy().tobytes() if fits else b""


def plan_of(record: torch.Tensor) -> TritonPlan:
    """The parsed plan, kept for as long as its tensor lives and nothing writes to it."""
    if record.is_inference():  # these count no versions
        return _parse(_bytes_of(record))
    version, plan = _plans.get(record, (None, None))
    if version != record._version:
        plan = _parse(_bytes_of(record))
        _plans[record] = record._version, plan
    return plan
