"""A quantization spec: an element format plus where its scales live and how they are stored."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .format import Format

SCALE_FORMATS = ("float32", "bfloat16", "e8m0fnu", "e4m3fn")
SCALE_RULES = ("absmax", "mse")
SCALE_SHORT = {"bfloat16": "bf16", "e8m0fnu": "e8m0", "e4m3fn": "e4m3fn", "float32": "f32"}
SCALE_ALIASES = {alias: full for full in SCALE_FORMATS for alias in (full, SCALE_SHORT[full])}

PRESETS = {
    "mxfp4": "e2m1-g32-e8m0",
    "mxfp6-e2m3": "e2m3-g32-e8m0",
    "mxfp6-e3m2": "e3m2-g32-e8m0",
    "mxfp8-e4m3": "e4m3fn-g32-e8m0",
    "mxfp8-e5m2": "e5m2-g32-e8m0",
    "mxint8": "int8-g32-e8m0",
    "nvfp4": "e2m1-g16-e4m3fn",
    "nf4": "nf4-g64",
}


@dataclass(frozen=True)
class QuantSpec:
    """How a matrix (rows, K) is quantized.

    Attributes:
        format: element format.
        granularity: "tensor", "row" or "group" (group_size consecutive elements of a row share a scale).
        group_size: G, None unless granularity is "group".
        scale_format: how a scale is stored: "float32", "bfloat16", "e8m0fnu" (powers of two, OCP MX) or
            "e4m3fn" (with a second float32 scale for the whole tensor, as in NVFP4).
        zero_point: integers only: value = scale * (code value - zero point).
        scale_rule: "absmax" (OCP MX's floor rule for e8m0fnu) or "mse" (the candidate with the least squared error).
    """

    format: Format
    granularity: str
    group_size: int | None = None
    scale_format: str = "float32"
    zero_point: bool = False
    scale_rule: str = "absmax"

    def __post_init__(self):
        if self.granularity not in ("tensor", "row", "group"):
            raise ValueError(f"granularity {self.granularity!r} must be 'tensor', 'row' or 'group'")
        if (self.granularity == "group") != (self.group_size is not None):
            raise ValueError(f"granularity {self.granularity!r} does not go with group_size={self.group_size}")
        if self.group_size is not None and not 1 <= self.group_size <= 1 << 20:
            raise ValueError(f"group size {self.group_size} must be between 1 and {1 << 20}")
        if self.scale_format not in SCALE_FORMATS:
            raise ValueError(f"scale format {self.scale_format!r} must be one of {', '.join(SCALE_FORMATS)}")
        if self.scale_rule not in SCALE_RULES:
            raise ValueError(f"scale rule {self.scale_rule!r} must be one of {', '.join(SCALE_RULES)}")
        if self.zero_point and self.format.kind != "int":
            raise ValueError(f"a zero point needs an integer format, and {self.format} is none")
        if self.zero_point and self.scale_format in ("e4m3fn", "e8m0fnu"):
            raise ValueError(f"a zero point does not go with {self.scale_format} scales: use float32 or bfloat16")

    @staticmethod
    def parse(text: str | QuantSpec) -> QuantSpec:
        """The spec written as `text`: a preset, or format-granularity[-scale format][-zp][-mse].

        Examples: "e2m1-g32-e8m0", "int4-g128", "uint4-g32-bf16-zp", "int8-row", "e4m3fn-tensor", "nvfp4", "mxfp4-mse".
        Raises:
            ValueError: unknown part, named together with what would be right.
        """
        if isinstance(text, QuantSpec):
            return text
        if not isinstance(text, str):
            raise ValueError(f"a quantization spec is a string such as 'e2m1-g32-e8m0', got {type(text).__name__}")
        name, parts = _split_preset(text)
        near = [p for p in PRESETS if f"{p}-".startswith(f"{name}-") and not PRESETS[p].startswith(name)]
        if near:
            choices = " or ".join(f"{p!r} ({PRESETS[p]})" for p in near)
            raise ValueError(f"{text!r} is no preset: use {choices}; only '-mse' may follow, so write other parts out")
        fields: dict = {}
        for part in parts:
            for key, value in _read_part(part, text).items():
                if fields.setdefault(key, value) != value:
                    raise ValueError(f"{text!r} sets {key} twice")
        if "granularity" not in fields:
            Format.parse(name)  # an unknown format is the more useful complaint
            raise ValueError(
                f"{text!r} does not say where scales live: add '-tensor', '-row' or '-g32' (a group of 32)"
            )
        return QuantSpec(Format.parse(name), **fields)

    def __str__(self) -> str:
        parts = [self.format.name, f"g{self.group_size}" if self.group_size else self.granularity]
        if self.scale_format != "float32":
            parts.append(SCALE_SHORT[self.scale_format])
        if self.zero_point:
            parts.append("zp")
        if self.scale_rule != "absmax":
            parts.append(self.scale_rule)
        return "-".join(parts)

    @property
    def scale_bits(self) -> int:
        """Width of one stored scale."""
        return {"float32": 32, "bfloat16": 16}.get(self.scale_format, 8)

    def groups(self, k: int) -> int:
        """How many scales a row of k elements has.

        Raises:
            ValueError: k is not a multiple of the group size.
        """
        if self.group_size is None:
            return 1
        if k and k < self.group_size:
            raise ValueError(f"K={k} is smaller than the group size {self.group_size}; use '-row' or a smaller group")
        if k % self.group_size:
            padded = -(-k // self.group_size) * self.group_size
            raise ValueError(f"K={k} is not a multiple of the group size {self.group_size}; pad x and w to {padded}")
        return k // self.group_size


def _split_preset(text: str) -> tuple[str, list[str]]:
    """The format name and the remaining parts, with a leading preset written out."""
    for preset in sorted(PRESETS, key=len, reverse=True):
        rest = text.removeprefix(preset)
        parts = rest.removeprefix("-").split("-") if rest else []
        if text.startswith(preset) and (not rest or rest[0] == "-") and all(p in ("zp", *SCALE_RULES) for p in parts):
            return _split(PRESETS[preset] + rest)
    return _split(text)


def _split(text: str) -> tuple[str, list[str]]:
    name, *parts = re.split(r"-(?!\d)", text)  # a minus before a digit belongs to a negative bias
    return name, parts


def _read_part(part: str, text: str) -> dict:
    if part in ("tensor", "row"):
        return {"granularity": part}
    if match := re.fullmatch(r"g(\d+)", part):
        return {"granularity": "group", "group_size": int(match[1])}
    if part in SCALE_ALIASES:
        return {"scale_format": SCALE_ALIASES[part]}
    if part == "zp":
        return {"zero_point": True}
    if part in SCALE_RULES:
        return {"scale_rule": part}
    raise ValueError(
        f"{part!r} in {text!r} is not a part of a spec: expected 'tensor', 'row', 'g32', "
        f"a scale format ({', '.join(SCALE_ALIASES)}), 'zp' or 'mse'"
    )
