"""Measure the area of multiply-accumulators for many pairs of formats, and keep the cheapest circuit of each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from ..formats import Format
from . import costs, tools
from .mac import Mac, mac
from .synth import FLOW, area
from .variants import fitting

BATCH = 12  # circuits a yosys run: starting it takes longer than one of them
NOT_FOR_CHOICE = ("star",)  # what a plain `*` costs is shown, never used
USEFUL = [
    *("int3", "e2m0"),
    *("int4", "e2m1", "e3m0"),
    *("int5", "e2m2", "e3m1"),
    *("int6", "e2m3", "e3m2"),
    *("int7", "e3m3", "e4m2"),
    *("int8", "e3m4", "e4m3fn", "e5m2"),
]
TABLES = [(table, activation) for table in ("binary", "ternary", "flint4", "nf4") for activation in ("int8", "e4m3fn")]


def same_format_pairs() -> list[tuple[str, str]]:
    """Every integer and every EeMm of 3 to 8 bits against itself."""
    names = [f"int{bits}" for bits in range(3, 9)]
    for bits in range(3, 9):
        names += [f"e{e}m{bits - 1 - e}" for e in range(1, bits)]
    names[names.index("e4m3")] = "e4m3fn"
    return [(name, name) for name in names]


def mixed_pairs(every: bool = False) -> list[tuple[str, str]]:
    """Weights with activations at least as wide: of the useful formats of each width, or of all."""
    names = [w for w, _ in same_format_pairs()] if every else USEFUL
    bits = {name: Format.parse(name).bits for name in names}
    return [(w, a) for w in names for a in names if w != a and bits[a] >= bits[w]]


def measure(
    pairs: Iterable[tuple[str, str]], k: int = 1024, report: Callable[[str], None] = lambda text: None
) -> dict[str, dict]:
    """{"w a": entry} with the area of the cheapest circuit and [lut, lc] of every circuit tried."""
    jobs = []
    for w, a in pairs:
        probe = mac(w, a, k)
        jobs += [mac(w, a, k, variant=v) for v in fitting(probe.pair.w, probe.pair.a)]
    tried: dict[str, dict[str, list[int]]] = {}
    for start in range(0, len(jobs), BATCH):
        batch = jobs[start : start + BATCH]
        modules = [d.module(f"{d.name}_{d.pair.circuit}".replace("-", "_")) for d in batch]
        areas = area(modules)
        for d, m in zip(batch, modules, strict=True):
            found = areas[m.name]
            tried.setdefault(_key(d), {})[d.pair.circuit] = [found.lut, found.lc]
        report(f"{min(start + BATCH, len(jobs))} of {len(jobs)} circuits")
    out = {}
    for w, a in pairs:
        d = mac(w, a, k)
        choice = {v: cost for v, cost in tried[_key(d)].items() if v not in NOT_FOR_CHOICE}
        variant = min(choice, key=lambda v: choice[v])
        out[_key(d)] = entry(replace(d, pair=replace(d.pair, variant=variant))) | {"tried": tried[_key(d)]}
    return out


def entry(d: Mac) -> dict:
    """The area of one Mac synthesised on its own."""
    m = d.module()
    bits = {"accumulator_bits": d.accumulator_bits}
    return {"variant": d.pair.circuit, **area([m])[m.name].as_dict(), **bits}


def update(pairs: list[tuple[str, str]], report: Callable[[str], None] = lambda text: None) -> dict:
    """Measure pairs, in portions so that an interruption loses little, and add them to the shipped table."""
    for start in range(0, len(pairs), BATCH):
        found = measure(pairs[start : start + BATCH])
        data = costs.load()
        data |= {"tool": tools.version("yosys"), "flow": FLOW, "k": 1024}
        data["mac"] |= found
        costs.save(data)
        report(f"{min(start + BATCH, len(pairs))} of {len(pairs)} pairs")
    return costs.load()


def _key(d: Mac) -> str:
    return f"{d.pair.weight} {d.pair.activation}"
