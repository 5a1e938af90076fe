"""What a multiply-accumulate costs in hardware, from the shipped table of measured circuits."""

from __future__ import annotations

from functools import cache

from ..formats import Format, QuantSpec


@cache
def luts_per_mac(weight: str, activation: str | None) -> int | None:
    """LUT6s of one exact multiply-accumulator (K = 1024) for these element formats; scales are not in it.

    Args:
        weight, activation: names of formats.
    Returns:
        None if the pair was not measured, or there is no activation format: then hardware multiplies floats. A pair
        that was measured only with its sides exchanged counts: the circuit is the same.
    """
    if activation is None:
        return None
    table = _table()
    for pair in ((weight, activation), (activation, weight)):
        if (entry := table.get(" ".join(pair))) is not None:
            return entry["lut"]
    return None


@cache
def _table() -> dict:
    from ..rtl import costs

    return costs.load()["mac"]


def family(spec: str) -> str:
    """'int', 'float' or 'codebook': what the report colours apart."""
    kind = _format(spec).kind
    return kind if kind in ("int", "float") else "codebook"


def bits(spec: str | None) -> int:
    """Bits of an element; 32 for None, which is float32."""
    return 32 if spec is None else _format(spec).bits


def _format(spec: str) -> Format:
    return QuantSpec.parse(spec).format
