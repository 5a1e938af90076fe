"""Measure the area of multiply-accumulators for many pairs of formats, and keep the cheapest circuit of each."""

from __future__ import annotations

from collections.abc import Callable

from ..formats import Format
from . import costs, tools
from .dot import Dot
from .mac import mac
from .pnr import fmax
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
    dull = () if every else ("star", "digits-wide-onehot", "rows", "rows-onehot", "multiply-onehot")
    if dull and "digits" in names:
        dull += ("multiply",)
    if pair.w.max_shift + pair.a.max_shift > FAR:
        return names[:2]
    return [name for name in names if name not in dull]


def measure(pairs: list[tuple[str, str]], k: int = 1024) -> dict[str, dict]:
    """{"w a": the area of the cheapest circuit, and [lut, lc] of every circuit tried}, from one yosys run.

    The mapper's result moves by a few LUTs with the names around a circuit: the same call repeats exactly, another
    portion of pairs may not.
    """
    designs = [mac(w, a, k, variant=v) for w, a in pairs for v in candidates(w, a, every=w == a)]
    modules = [d.module(f"{d.name}_{d.pair.circuit}".replace("-", "_")) for d in designs]
    areas = area(modules)
    found: dict[str, dict] = {}
    for d, m in zip(designs, modules, strict=True):
        found.setdefault(f"{d.pair.weight} {d.pair.activation}", {})[d.pair.circuit] = areas[m.name]
    out = {}
    for w, a in pairs:
        tried = found[f"{w} {a}"]
        best = min((v for v in tried if v not in NOT_FOR_CHOICE), key=lambda v: (tried[v].lut, tried[v].lc))
        bits = {"accumulator_bits": mac(w, a, k).accumulator_bits}
        costs_of = {"tried": {v: [c.lut, c.lc] for v, c in tried.items()}}
        out[f"{w} {a}"] = {"variant": best, **tried[best].as_dict(), **bits, **costs_of}
    return out


def update(pairs: list[tuple[str, str]], report: Callable[[str], None] = lambda text: None, portion: int = 1) -> dict:
    """Measure pairs, `portion` of them in a yosys run, and add them to the shipped table."""
    for start in range(0, len(pairs), portion):
        found = measure(pairs[start : start + portion])
        data = costs.load()
        data |= {"tool": tools.version("yosys"), "flow": FLOW, "k": 1024}
        data["mac"] |= found
        costs.save(data)
        for key, e in found.items():
            report(f"{key.replace(' ', ' x ')}: {e['lut']} LUT ({e['lc']} LC), {e['variant']}")
    return costs.load()


def update_dots(names: list[str], lanes: int = 16, k: int = 1024) -> None:
    """Measure a dot product of each format with itself and add it to the shipped table."""
    for name in names:
        design = Dot(mac(name, name).pair, lanes, k, depth=1)
        found = area([design.module()], [m.render() for m in design.parts()])[design.name]
        data = costs.load()
        data.setdefault("dot", {})[f"{name} {name}"] = {
            "lanes": lanes,
            "variant": design.pair.circuit,
            **found.as_dict(),
        }
        costs.save(data)


def update_fmax(pairs: list[tuple[str, str]], depths: tuple[int, ...] = (1, 2, 3)) -> None:
    """Place and route Macs for an ECP5 at each pipeline depth and add their clock frequencies to the shipped table."""
    for w, a in pairs:
        mhz = {str(depth): round(fmax(mac(w, a, depth=depth).module()), 1) for depth in depths}
        data = costs.load() | {"fmax_tool": tools.version("nextpnr-ecp5")}
        data.setdefault("fmax", {})[f"{w} {a}"] = mhz
        costs.save(data)
