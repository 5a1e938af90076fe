"""The two commands, from a task to a page."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from minifloat.cli import app

pytest.importorskip(
    "distributed", reason="`minifloat explore` needs dask.distributed: pip install 'minifloat[explore]'"
)
pytest.importorskip("plotly", reason="`minifloat report` needs plotly: pip install 'minifloat[explore]'")

TASK = f"{Path(__file__).parent / 'tiny_task.py'}:load"


def invoke(*args):
    return CliRunner().invoke(app, list(map(str, args)), env={"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"})


def test_from_a_task_to_a_page(tmp_path):
    store, page = tmp_path / "results.jsonl", tmp_path / "pages" / "report.html"
    command = ["explore", TASK, "--weights", "int4-row,e2m1-row", "--activations", "same,none", "--out", store]
    result = invoke(*command)
    assert result.exit_code == 0, result.output
    assert "5 cells, 0 of them" in result.output and "[5/5]" in result.output and "28.0 LUTs" in result.output
    result = invoke(*command, "--method", "nearest", "--method", "gptq")
    assert result.exit_code == 0, result.output
    assert "9 cells, 5 of them" in result.output and "[4/4]" in result.output
    result = invoke("report", store, "--out", page)
    assert result.exit_code == 0, result.output
    assert "9 results" in result.output and page.stat().st_size > 1_000_000


@pytest.mark.parametrize(
    ("args", "code", "part"),
    [
        (["explore", TASK, "--weights", "int9-row"], 2, "int9"),
        (["explore", TASK, "--activations", "int4-row-mse"], 1, "drop '-mse'"),
        (["explore", TASK, "--method", "gptk"], 2, "gptk"),
        (["explore", "mobilnet"], 1, "unknown task 'mobilnet'"),
        (["explore", TASK, "--weights", "int4-g24"], 1, "failed; the same command tries them again"),
        (["report", "nowhere.jsonl"], 1, "nowhere.jsonl does not exist"),
    ],
)
def test_errors(tmp_path, args, code, part):
    out = ["--out", tmp_path / "out"] if args[0] == "explore" else []
    if "--weights" not in args:
        out += ["--weights", "int4-row"] if args[0] == "explore" else []
    result = invoke(*args, *out)
    assert result.exit_code == code, result.output
    assert part in result.output + result.stderr
    assert "Traceback" not in result.output


def test_a_damaged_store_stops_both_commands(tmp_path):
    store = tmp_path / "results.jsonl"
    store.write_text("what is this\n")
    for args in (["explore", TASK, "--out", store], ["report", store]):
        result = invoke(*args)
        assert result.exit_code == 1
        assert "line 1 is not a result" in result.output + result.stderr


def test_a_missing_package_names_the_command(monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None)
    for args in (["explore", TASK], ["report", "x.jsonl"]):
        result = invoke(*args)
        assert result.exit_code == 1
        assert "pip install 'minifloat[explore]'" in result.output + result.stderr
