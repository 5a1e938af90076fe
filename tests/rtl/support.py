"""What the hardware tests share: skips that say why, format lists, and the exact sums to compare with."""

import numpy as np
import pytest

from minifloat.formats import Format, format_names
from minifloat.rtl import tools
from minifloat.rtl.simulate import words_of


def need(*commands) -> None:
    """Skip, naming the tool and how to get it, unless every command of tools.py finds its tool."""
    for command in commands:
        try:
            command()
        except tools.MissingTool as why:
            pytest.skip(str(why))


def need_simulator() -> None:
    need(tools.verilator, tools.compiler)


def minifloats(bits: int) -> list[str]:
    """Every EeMm of `bits` bits; the ambiguous e4m3 is spelled as the one without special codes."""
    names = [f"e{e}m{bits - 1 - e}" for e in range(1, bits)]
    return ["e4m3finite" if name == "e4m3" else name for name in names]


def hardware_formats() -> list[str]:
    """Every named format that hardware supports, and every EeMm of 3 to 8 bits."""
    named = [name for name in format_names() if Format.parse(name).kind != "codebook" or Format.parse(name).bits <= 4]
    every = [name for bits in range(3, 9) for name in minifloats(bits)]
    return list(dict.fromkeys(named + every))


def all_pairs(weight: str, activation: str, specials: bool) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of codes; without those that are not numbers unless `specials`."""
    codes = [np.arange(1 << f.bits)[f.is_number | specials] for f in map(Format.parse, (weight, activation))]
    w, a = np.meshgrid(*codes, indexing="ij")
    return w.ravel(), a.ravel()


def running_sums(weight: str, activation: str, w, a, clear, bits: int) -> np.ndarray:
    """The accumulator after each beat, as words: exact integers from the formats' grids."""
    product = Format.parse(weight).grid[w].astype(object) * Format.parse(activation).grid[a].astype(object)
    product = np.where(clear, 0, product)
    if np.abs(product).sum() < 2**62:
        product = product.astype(np.int64)
    total = np.cumsum(product)
    start = np.maximum.accumulate(np.where(clear, np.arange(len(w)), 0))
    return words_of(total - total[start], bits)


def corner_codes(f: Format, count: int, rng) -> list[np.ndarray]:
    """Vectors of `count` codes: all largest, all smallest, alternating signs, subnormals and zeros, random."""
    numbers = np.flatnonzero(f.is_number)
    values = f.values[numbers]
    largest, lowest = numbers[np.argmax(values)], numbers[np.argmin(values)]
    tiny = numbers[np.argsort(np.abs(values), kind="stable")][:4]  # zeros and the smallest magnitudes
    every_other = np.where(np.arange(count) % 2, largest, lowest)
    return [
        np.full(count, largest),
        np.full(count, lowest),
        every_other,
        np.resize(tiny, count),
        rng.choice(numbers, count),
    ]
