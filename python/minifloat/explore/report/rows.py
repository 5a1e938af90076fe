"""Results as the flat records that the page draws."""

from __future__ import annotations

from ..cells import Cell
from ..luts import bits, family


def rows(stores: list[dict[Cell, dict]]) -> list[dict]:
    """One record a result, in the order of the stores; a cell in several stores counts once."""
    merged: dict[Cell, dict] = {}
    for store in stores:
        for cell, result in store.items():
            merged.setdefault(cell, result)
    return [row(cell, result) for cell, result in merged.items()]


def row(cell: Cell, result: dict) -> dict:
    """The record of one result; what the page does not know of stays out."""
    return {
        "task": cell.task,
        "weight": cell.weight or "float32",
        "activation": cell.activation or "float32",
        "method": cell.method if cell.weight else "",
        "ends": cell.ends or "",
        "family": "float32" if cell.weight is None else family(cell.weight),
        "bits": bits(cell.weight),
        "activation_bits": bits(cell.activation),
        "metric": result["metric"],
        "higher_is_better": result["higher_is_better"],
        "about": result["about"],
        "value": result["metrics"].get(result["metric"]),
        "metrics": result["metrics"],
        "bits_per_weight": result["bits_per_weight"],
        "luts": result["luts_per_mac"],
        "bytes": result["model_bytes"],
        "time_ms": result["layer_time_ms"],
    }
