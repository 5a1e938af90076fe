"""Measure the area of multiply-accumulators for many pairs of formats, and keep the cheapest circuit of each."""

from __future__ import annotations

from collections.abc import Callable

from ..formats import Format
from . import costs, tools
from .mac import mac
from .synth import FLOW, area
from .variants import fitting

NOT_FOR_CHOICE = ("star",)  # what a plain `*` costs is shown, never used
FAR = 64  # beyond this shift a circuit is all shifter and takes minutes to map: the two best guesses suffice
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


def candidates(weight: str, activation: str, every: bool) -> list[str]:
    """The circuits to try: all that fit, or those that have come out cheapest for some pair."""
    pair = mac(weight, activation).pair
    names = fitting(pair.w, pair.a)
    dull = () if every else ("star", "digits-wide-onehot")
    if dull and "digits" in names:
        dull += ("rows", "multiply-onehot", "multiply")
    if pair.w.max_shift + pair.a.max_shift > FAR:
        return names[:2]
    return [name for name in names if name not in dull]


def measure(weight: str, activation: str, k: int = 1024, every: bool = False) -> dict:
    """The area of the cheapest circuit, and [lut, lc] of every circuit tried. One yosys run, so it repeats exactly."""
    designs = [mac(weight, activation, k, variant=v) for v in candidates(weight, activation, every)]
    modules = [d.module(f"{d.name}_{d.pair.circuit}".replace("-", "_")) for d in designs]
    areas = area(modules)
    found = {d.pair.circuit: areas[m.name] for d, m in zip(designs, modules, strict=True)}
    choice = [v for v in found if v not in NOT_FOR_CHOICE]
    best = min(choice, key=lambda v: (found[v].lut, found[v].lc))
    bits = {"accumulator_bits": designs[0].accumulator_bits}
    return {"variant": best, **found[best].as_dict(), **bits, "tried": {v: [c.lut, c.lc] for v, c in found.items()}}


def update(pairs: list[tuple[str, str]], report: Callable[[str], None] = lambda text: None) -> dict:
    """Measure pairs and add each to the shipped table."""
    for done, (w, a) in enumerate(pairs, start=1):
        found = measure(w, a, every=w == a)
        data = costs.load()
        data |= {"tool": tools.version("yosys"), "flow": FLOW, "k": 1024}
        data["mac"][f"{w} {a}"] = found
        costs.save(data)
        report(f"{done} of {len(pairs)}: {w} x {a}, {found['lut']} LUT ({found['lc']} LC), {found['variant']}")
    return costs.load()
