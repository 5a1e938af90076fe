"""Result files: small enough to keep in the repository.

In memory a cell holds its contenders' statistics by name. In a file, what does not change from cell to cell is written
once: `contenders` has each one's library, width and arithmetic, `weights` its stored bits and error for each (N, K).
A cell has `times` in the order of `contenders`: [best, p10, median, p90, samples] in us, null where one was skipped.
The limits are computed from the ceilings.
"""

from __future__ import annotations

import json
from pathlib import Path

from .ceilings import limit_us

TIMES = ("best_us", "p10_us", "median_us", "p90_us", "samples")
FIXED = ("library", "width", "arithmetic")
OURS = "ours "
READING = "reading "


def with_reading(cell: dict, ceilings: dict[str, float]) -> dict[str, float]:
    """The ceilings, and DRAM's rate in GB/s as contenders that only read met it: it changes within a run."""
    weights = cell["n"] * cell["k"]
    rates = [
        stats["bits"] * weights / 8 / stats["best_us"] / 1e3
        for name, stats in cell["contenders"].items()
        if name.startswith(READING)
    ]
    return ceilings | {"dram_reading_gbs": max(rates)} if rates else ceilings


def set_limits(cell: dict, ceilings: dict[str, float], machine: dict) -> None:
    """Give every contender of a cell the least time that the machine, with the instructions it may use, would allow."""
    n, k = cell["n"], cell["k"]
    ceilings = with_reading(cell, ceilings)
    for name, stats in cell["contenders"].items():
        may_use = machine["isa" if name.startswith(OURS) else "peer_isa"]
        limit = limit_us(ceilings, (n, k), cell["m"], stats["bits"] * n * k / 8, stats["arithmetic"], may_use)
        stats["limit_us"] = limit and float(f"{limit:.4g}")


def pack(results: dict) -> dict:
    """What is written."""
    fixed, weights, cells = {}, {}, []
    for cell in results["cells"]:
        of_shape = weights.setdefault(f"{cell['n']}x{cell['k']}", {})
        for name, stats in cell["contenders"].items():
            fixed[name] = {key: stats[key] for key in FIXED}
            error = max(stats["error"], of_shape.get(name, [0, 0])[1])
            of_shape[name] = [stats["bits"], error]
    for cell in results["cells"]:
        found = [cell["contenders"].get(name) for name in fixed]
        times = [stats and [stats[key] for key in TIMES] for stats in found]
        cells.append({key: cell[key] for key in ("n", "k", "m", "threads")} | {"times": times})
    rest = {key: results[key] for key in ("machine", "ceilings", "skipped")}
    return rest | {"contenders": fixed, "weights": weights, "cells": cells}


def unpack(packed: dict) -> dict:
    """The inverse of pack; error becomes the largest over the batch sizes."""
    cells = []
    for cell in packed["cells"]:
        of_shape = packed["weights"][f"{cell['n']}x{cell['k']}"]
        contenders = {}
        for name, times in zip(packed["contenders"], cell.pop("times"), strict=True):
            if times is None:
                continue
            bits, error = of_shape[name]
            contenders[name] = packed["contenders"][name] | {"bits": bits, "error": error}
            contenders[name] |= dict(zip(TIMES, times, strict=True))
        cells.append(cell | {"contenders": contenders})
        set_limits(cells[-1], packed["ceilings"][str(cell["threads"])], packed["machine"])
    return {key: packed[key] for key in ("machine", "ceilings", "skipped")} | {"cells": cells}


def write(results: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(pack(results)) + "\n")


def read(path: Path) -> dict:
    return unpack(json.loads(path.read_text()))


def _lines(value, depth: int = 0) -> str:
    """JSON with objects spread over lines down to those that hold no object."""
    if isinstance(value, dict) and any(isinstance(v, (dict, list)) for v in value.values()):
        inner = ",\n".join(f"{' ' * depth} {json.dumps(k)}: {_lines(v, depth + 1)}" for k, v in value.items())
        return f"{{\n{inner}\n{' ' * depth}}}"
    if isinstance(value, list) and any(isinstance(v, dict) for v in value):
        return "[\n" + ",\n".join(" " * depth + _lines(v, depth) for v in value) + f"\n{' ' * depth}]"
    return json.dumps(value, separators=(",", ":"))
