"""`make gpu` without a GPU: what a failing, crashing or hanging group of tests costs the others; limits of time."""

import json
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from benchmarks.gpu import groups, process, run
finally:
    sys.path.remove(str(ROOT))

TESTS = """
import os, signal, time
import pytest

def test_good():
    pass

@pytest.mark.parametrize("case", [1, 2])
def test_bad(case):
    assert case == 1, "wrong bits"

def test_crash():
    os.kill(os.getpid(), signal.SIGSEGV)

def test_hang():
    time.sleep(60)

@pytest.mark.skip(reason="not here")
def test_away():
    pass
"""


def test_a_group_is_a_route_or_a_file():
    file = "tests/cuda/gpu/test_routes.py::test_route"
    assert groups.group_of(f"{file}[narrow.bfloat16-e2m1-row-bfloat16-1x17x256]") == "narrow.bfloat16"
    assert groups.group_of("tests/cuda/gpu/test_op.py::test_graph_capture[int4-g128-None]") == "test_op"
    found = groups.collect()
    assert {"narrow.int8", "warpgroup.float8", "tables.float32"} <= set(found) and list(found)[-1] == "test_op"
    assert all(test.startswith("tests/cuda/gpu/") for tests in found.values() for test in tests)


def test_groups_do_not_hide_each_other(monkeypatch, tmp_path, capsys):
    file = tmp_path / "test_made_up.py"
    file.write_text(TESTS)
    monkeypatch.setattr(groups, "GROUP_SECONDS", 8)
    found = {name: [f"{file}::test_{name}"] for name in ("crash", "good", "bad", "hang", "away")}
    results = groups.run_groups(found, 60, 2, tmp_path / "results.json")
    assert {name: result["status"] for name, result in results.items()} == {
        "good": "passed",
        "bad": "failed",
        "crash": "ended with SIGSEGV",
        "hang": "stopped after 8 s",
        "away": "skipped",
    }
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert len(results["bad"]["failures"]) == 1 and "wrong bits" in results["bad"]["failures"][0]
    assert results["bad"]["counts"].startswith("1 failed, 1 passed")
    assert groups.failed_routes(results) == {"bad", "crash", "hang"}
    assert groups.summary(results).splitlines()[-1] == "passed: good"
    assert "bad: failed" in capsys.readouterr().out


def test_groups_without_time_left_are_said(tmp_path):
    results = groups.run_groups({"late": ["no such test"]}, 1, 1, tmp_path / "results.json")
    assert results["late"]["status"] == "not run" and groups.not_passed(results) == ["late"]
    assert not groups.failed_routes(results)


def test_stages_share_the_budget(monkeypatch, capsys):
    stages = run.Stages(100)
    monkeypatch.setattr(stages, "start", time.monotonic() - 70)
    assert run.STAGES["build"] > 100 and 25 < stages.limit("build") <= 30
    assert stages.run("test", lambda seconds: None) and not stages.run("bench", lambda seconds: "no figures")
    assert stages.ends["test"].startswith("ok, ") and stages.ends["bench"].startswith("FAILED (no figures), ")
    assert run.Stages(-5).limit("build") == 1


def test_nothing_is_left_running(tmp_path):
    """A stage that is stopped takes its children along."""
    left = tmp_path / "left"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(left)!r}).touch()"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    code, _ = process.run([sys.executable, "-c", parent], 1)
    assert code == "stopped after 1 s"
    time.sleep(4)
    assert not left.exists()


@pytest.mark.parametrize("version", ["65.5.0", "76.1"])
def test_setuptools_that_is_too_old_is_said(monkeypatch, version):
    import setuptools
    import torch

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", "/nowhere")
    assert run.gpu_problem() == "no nvcc: the kernels cannot be built"
    assert run.architecture() == "sm_90a"
    monkeypatch.setattr(Path, "exists", lambda self: self.name != "Python.h")
    assert run.gpu_problem() == "no Python.h: the extension cannot be built"
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(setuptools, "__version__", version)
    assert run.gpu_problem() == f"setuptools {version} cannot read pyproject.toml's license; 77 can"
