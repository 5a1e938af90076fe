"""The tables and examples of docs/formats.md say what the library does."""

import re
from pathlib import Path

import numpy as np
import pytest

from minifloat import Format, QuantSpec
from minifloat.formats import PRESETS, ROUNDINGS
from minifloat.formats.quant_spec import SCALE_ALIASES
from minifloat.packing import pack

DOC = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()


def table(first_column: str, **columns: str) -> list[dict[str, str]]:
    """The rows of the table whose header starts with these columns, keyed by header, without backquotes."""
    lines = iter(DOC.splitlines())
    start = "| " + " | ".join([first_column, *columns.values()]) + " |"
    for line in lines:
        if line.startswith(start):
            header = split(line)
            next(lines)
            rows = []
            for row in lines:
                if not row.startswith("|"):
                    break
                rows.append(dict(zip(header, split(row), strict=True)))
            return rows
    raise AssertionError(f"docs/formats.md has no table {start}")


def split(line: str) -> list[str]:
    return [cell.strip().replace("`", "") for cell in line.strip().strip("|").split("|")]


def number(text: str) -> float:
    base, _, exponent = text.partition("**")
    return float(base) ** float(exponent) if exponent else float(text)


def code_ranges(text: str) -> list[int]:
    """'79-7f ff' as a list of integers."""
    codes = []
    for part in [] if text == "none" else text.split():
        low, _, high = part.partition("-")
        codes += range(int(low, 16), int(high or low, 16) + 1)
    return codes


def test_small_floats():
    rows = table("name", bits="bits", bias="bias", values="values of the codes without sign, in code order")
    assert len(rows) == 7
    for row in rows:
        f = Format.parse(row["name"])
        values = [float(v) for v in row["values of the codes without sign, in code order"].split()]
        assert (f.bits, f.bias, f.unit, f.grid_max) == tuple(
            int(row[c]) for c in ("bits", "bias", "unit", "largest grid value")
        )
        np.testing.assert_array_equal(f.values, values + [-v for v in values] if f.signed else values)


def test_8_bit_floats():
    rows = table("name", bias="bias", largest="largest", smallest="smallest", nan="NaN codes")
    assert len(rows) == 18
    for row in rows:
        f = Format.parse(row["name"])
        assert (f.name, f.bits, f.bias) == (row["name"], 8, int(row["bias"]))
        assert (f.max, f.smallest) == (number(row["largest"]), number(row["smallest"]))
        assert np.flatnonzero(np.isnan(f.values)).tolist() == code_ranges(row["NaN codes"])
        assert np.flatnonzero(np.isinf(f.values)).tolist() == code_ranges(row["infinity codes"])
        assert f.negative_zero_code == (None if row["minus zero"] == "none" else int(row["minus zero"], 16))


def test_suffixes():
    suffixes = {row["suffix"].split(",")[0]: row for row in table("suffix", nan="NaN", infinity="infinity")}
    assert set(suffixes) == {"finite", "fn", "fnuz", "ieee", "fnu"}
    for suffix, row in suffixes.items():
        f = Format.parse("e8m0fnu" if suffix == "fnu" else f"e4m3{suffix}")
        assert np.isnan(f.values).any() == (row["NaN"] != "no code")
        assert np.isinf(f.values).any() == (row["infinity"] != "no code")
        assert (f.negative_zero_code is not None) == (row["minus zero"] == "yes")


def test_names_in_the_text_are_canonical():
    for name in ("e2m1b3", "e4m3b11fnuz", "e3m2b-2"):
        assert name in DOC and str(Format.parse(name)) == name
    for name in ("e4m3", "e8m0", "ue8m0"):
        assert f"`{name}`" in DOC
        with pytest.raises(ValueError, match="did you mean"):
            Format.parse(name)


def test_roundings():
    assert tuple(row["rounding"].split()[0] for row in table("rounding")) == ROUNDINGS


def test_examples_of_encoding():
    assert Format.parse("e3m0").decode(Format.parse("e3m0").encode([0.25, 0.375, 0.5])).tolist() == [0.25, 0.5, 0.5]
    f = Format.parse("e4m3fn")
    assert f.decode(f.encode([464, 464.1])).tolist() == [448, 448]
    np.testing.assert_array_equal(f.decode(f.encode([464, 464.1], overflow="special")), [448, np.nan])
    for name, code in {"e5m2": 0x7E, "e4m3fn": 0x7F, "e8m0fnu": 0xFF, "e4m3fnuz": 0x80}.items():
        assert Format.parse(name).encode(np.nan) == code


def test_codebooks():
    for row in table("name", bits="bits", values="values in code order", ties="ties and notes"):
        if "{n}" in row["name"]:
            continue
        f, text = Format.parse(row["name"]), row["values in code order"]
        assert f.bits == int(row["bits"])
        if "ascending" in text:
            low, high, zero = re.fullmatch(r"(\S+) to (\S+), ascending; 0 is code (\d+)", text).groups()
            assert (np.diff(f.values) > 0).all()
            assert (f.values[0], f.values[-1], f.values[int(zero)]) == (float(low), float(high), 0)
        else:
            np.testing.assert_array_equal(f.values, [float(v) for v in text.split()])


def test_scale_formats_and_spec_examples():
    for row in table("scale format", also="also written"):
        for name in {row["scale format"].split()[0], row["also written"] or "e4m3fn"}:
            assert QuantSpec.parse(f"int4-g32-{name}").scale_format == SCALE_ALIASES[name]
    examples = re.search(r"Examples: ((?:`[^`]+`[,.]\s+)+)", DOC)[1]
    for example in re.findall("`([^`]+)`", examples):
        assert str(QuantSpec.parse(example)) == example


def test_presets():
    rows = table("preset", spec="stands for")
    assert {row["preset"]: row["stands for"] for row in rows} == PRESETS
    for row in rows:
        spec = QuantSpec.parse(row["preset"])
        assert spec.format.bits + spec.scale_bits / spec.group_size == float(row["bits per value"])


def test_packing():
    for row in table("codes", bits="bits"):
        packed = pack(np.array([row["codes"].split()], np.uint8), int(row["bits"]))[0].tolist()
        assert packed == [int(byte, 16) for byte in row["bytes"].split()]
        assert packed == [int(byte, 2) for byte in row["bytes, in binary"].split()]
    np.testing.assert_array_equal(Format.parse("e2m3").encode([0.5, -1.25, 3, 7.5, 0]), [4, 42, 20, 31, 0])
