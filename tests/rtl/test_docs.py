"""docs/hardware.md shows the figures that ship with the package, and a test fails when it does not."""

from pathlib import Path

import pytest

from minifloat.rtl.cost import mixed_pairs, same_format_pairs
from minifloat.rtl.cost_table import documented
from minifloat.rtl.costs import load

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hardware.md"
# LUT raw, LC: what the first prototypes reached.
TARGETS = {
    "int4 int4": (32, 20),
    "int6 int6": (48, 33),
    "int8 int8": (70, 52),
    "e2m1 e2m1": (27, 18),
    "e2m3 e2m3": (61, 43),
    "e3m2 e3m2": (63, 44),
    "e4m3fn e4m3fn": (105, 80),
    "e5m2 e5m2": (147, 111),
    "int4 e4m3fn": (109, 78),
}


@pytest.mark.parametrize("part", ["cost", "dot", "fmax"])
def test_tables_are_those_of_the_data(part):
    text = PAGE.read_text()
    shown = text.split(f"<!-- {part}: begin -->\n")[1].split(f"<!-- {part}: end -->")[0]
    assert shown == documented(load())[part]


def test_every_format_and_many_mixed_pairs_are_measured():
    table = load()["mac"]
    assert not [pair for pair in same_format_pairs() if " ".join(pair) not in table]
    assert sum(" ".join(pair) in table for pair in mixed_pairs()) >= 120


@pytest.mark.parametrize("pair", TARGETS)
def test_shipped_areas_reach_the_prototypes(pair):
    entry = load()["mac"][pair]
    lut, lc = TARGETS[pair]
    assert entry["lut"] <= lut and entry["lc"] <= lc
