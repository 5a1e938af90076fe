"""`make gpu` without a GPU: what a failing, crashing or hanging group of tests costs the others; limits of time."""

import importlib
import importlib.util
import json
import os
import re
import sys
import time
from pathlib import Path

import pytest
import torch

from minifloat.ops import cuda

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
    found = groups.collect("cuda")
    assert {"narrow.int8", "warpgroup.float8", "tables.float32"} <= set(found)
    assert sorted(list(found)[-3:]) == ["test_large", "test_op", "test_steady"], (
        "the files after the routes, each by itself"
    )
    assert all(test.startswith("tests/cuda/gpu/") for tests in found.values() for test in tests)


def test_every_test_of_triton_is_in_one_group(monkeypatch):
    """Collected as for the interpreter: without a GPU there would be nothing."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    found = groups.collect("triton")
    assert list(found)[:2] == ["test_linear.1", "test_scaled.1"] and max(map(len, found.values())) <= groups.SHARED
    tests = [test for tests in found.values() for test in tests]
    assert len(tests) == len(set(tests)) > 150
    names = [{re.search(r"::(\w+)", test)[1] for test in tests} for tests in found.values()]
    assert all(len(found) > 3 for found in names), "every group is a sample"


def test_what_cannot_be_collected_is_said(monkeypatch):
    monkeypatch.setitem(groups.SUITES, "triton", groups.Suite(("tests/triton_backend/device.py",), 1))
    with pytest.raises(RuntimeError, match="pytest could not collect tests/triton_backend/device.py"):
        groups.collect("triton")


def test_groups_do_not_hide_each_other(tmp_path, capsys):
    file = tmp_path / "test_made_up.py"
    file.write_text(TESTS)
    found = {name: [f"{file}::test_{name}"] for name in ("crash", "good", "bad", "hang", "away")}
    results = groups.run_groups(found, 90, 2, tmp_path / "results.json", 20)
    assert {name: result["status"] for name, result in results.items()} == {
        "good": "passed",
        "bad": "failed",
        "crash": "ended with SIGSEGV",
        "hang": "stopped after 20 s",
        "away": "skipped",
    }
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert len(results["bad"]["failures"]) == 1 and "wrong bits" in results["bad"]["failures"][0]
    assert results["bad"]["counts"].startswith("1 failed, 1 passed")
    assert groups.failed_routes(results) == {"bad", "crash", "hang"}
    assert groups.summary(results).splitlines()[-1] == "passed: good"
    assert "bad: failed" in capsys.readouterr().out


def test_groups_without_time_left_are_said(monkeypatch, tmp_path):
    results = groups.run_groups({"late": ["no such test"]}, 1, 1, tmp_path / "results.json", 60)
    assert results["late"]["status"] == "not run" and groups.not_passed(results) == ["late"]
    assert not groups.failed_routes(results)
    stopped = {"status": "stopped after 50 s", "counts": "", "seconds": 50, "failures": [], "log": ""}
    monkeypatch.setattr(groups, "test_group", lambda tests, seconds: dict(stopped))
    results = groups.run_groups({"own": []}, 61, 1, tmp_path / "results.json", 50)
    assert results["own"]["status"] == "stopped after 50 s"
    results = groups.run_groups({"hang": []}, 50, 1, tmp_path / "results.json", 60)
    assert results["hang"]["status"] == "not run", "the stage ended, not the group's own time"
    assert results["hang"]["counts"] == "stopped after 50 s, when no time was left"


def test_stages_share_the_budget(monkeypatch, capsys):
    """What is kept for later stages is theirs; what a stage leaves goes to the next."""
    clock = [1000.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: clock[0])
    assert run.BUDGET == sum(run.STAGES.values()) == 480 and run.STAGES["sanitizer"] >= 60
    stages = run.Stages(list(run.STAGES), run.BUDGET)
    assert stages.limit("build") == run.STAGES["build"]
    clock[0] += 50
    assert stages.limit("cuda") == run.STAGES["build"] - 50 + run.STAGES["cuda"]
    for name in list(run.STAGES)[1:-1]:
        clock[0] += stages.limit(name)
    assert stages.limit("sanitizer") == run.STAGES["sanitizer"], "however long the others took"
    clock[0] += 500
    assert stages.limit("sanitizer") == 1
    few = run.Stages(["tune", "bench"], 310)
    assert few.limit("tune") == 310 * 40 / 155 and few.limit("bench") == 310


def test_how_stages_end(capsys):
    def skipped(seconds):
        raise run.Skipped("nothing to do")

    def late(seconds):
        raise run.OutOfTime("2 groups")

    stages = run.Stages(list(run.STAGES), 480)
    assert stages.run("build", lambda seconds: None) and stages.run("cuda", skipped) and stages.run("triton", late)
    assert not stages.run("bench", lambda seconds: "no figures")
    short = run.Stages(["sanitizer"], 19)
    assert short.run("sanitizer", lambda seconds: "stopped after 1 s"), "it was not begun"
    ends = [*stages.ends.values(), *short.ends.values()]
    for end, want in zip(
        ends,
        (
            "ok, ",
            "skipped (nothing to do), ",
            "INCOMPLETE (2 groups), ",
            "FAILED (no figures), ",
            "skipped (19 s are left",
        ),
        strict=True,
    ):
        assert end.startswith(want)


REFUSAL = "========= Error: Device not supported. Please refer to the documentation."


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", None),
        (f"echo '{REFUSAL}'; exit 1", "Skipped: memcheck: Error: Device not supported. Please refer"),
        (f"echo '{REFUSAL}'; exit 0", "Skipped: memcheck: Error: Device not supported. Please refer"),
        (f"echo '{REFUSAL}'; echo '========= ERROR SUMMARY: 2 errors'; exit 1", "memcheck: 1, racecheck: 1"),
        ("echo '= 1 failed'; exit 1", "memcheck: 1, racecheck: 1"),
        ("sleep 60", "OutOfTime: memcheck: stopped after 1 s, racecheck: stopped after 1 s"),
    ],
)
def test_what_compute_sanitizer_says(monkeypatch, tmp_path, capsys, script, end):
    """A stand-in for it. That it knows no such device, or had no time, is no fault of the kernels."""
    tool = tmp_path / "compute-sanitizer"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(run, "environment", lambda: {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    monkeypatch.setattr(run, "without_cuda", lambda: None)
    try:
        got = run.sanitize(2 if "sleep" in script else 60, {})
    except (run.Skipped, run.OutOfTime) as error:
        got = f"{type(error).__name__}: {error}"
    assert got == end if end is None or "Device" not in end else got.startswith(end)


def test_tests_that_had_no_time_are_no_failures(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(run, "without_cuda", lambda: None)
    monkeypatch.setattr(groups, "collect", lambda backend: {"a": [], "b": []})
    for statuses, end in ((("passed", "not run"), "no time for 1 of 2"), (("failed", "not run"), "1 of 2 groups")):
        results = {name: {"status": status} for name, status in zip("ab", statuses, strict=True)}
        monkeypatch.setattr(groups, "run_groups", lambda *_, results=results: results)
        try:
            got = run.test(60, "cuda", tmp_path / "results.json", {})
        except run.OutOfTime as error:
            got = str(error)
        assert got.startswith(end)


def test_nothing_is_left_running(tmp_path):
    """A stage that is stopped takes its children along."""
    left = tmp_path / "left"
    child = f"import time, pathlib; time.sleep(3); pathlib.Path({str(left)!r}).touch()"
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(60)"
    code, _ = process.run([sys.executable, "-c", parent], 1)
    assert code == "stopped after 1 s"
    time.sleep(4)
    assert not left.exists()


@pytest.fixture
def gpu(monkeypatch):
    """A stand-in for a GPU of sm_90 where torch has CUDA and there is no nvcc."""
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Made Up")
    monkeypatch.setattr("torch.utils.cpp_extension.CUDA_HOME", "/nowhere")


@pytest.mark.parametrize("version", ["65.5.0", "76.1"])
def test_what_a_build_lacks_is_said(monkeypatch, gpu, version):
    import setuptools

    assert run.gpu_problem() is None, "Triton needs no nvcc"
    assert run.cuda_problem() == "no nvcc" and run.architecture() == "sm_90a"
    monkeypatch.setattr(Path, "exists", lambda self: self.name != "Python.h")
    assert run.cuda_problem() is None
    assert run.gpu_problem() == "no Python.h: the extension cannot be built"
    monkeypatch.setattr(Path, "exists", lambda self: True)
    monkeypatch.setattr(setuptools, "__version__", version)
    assert run.gpu_problem() == f"setuptools {version} cannot read pyproject.toml's license; 77 can"


def test_torch_for_rocm_and_old_gpus_have_triton(monkeypatch, gpu):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    assert run.gpu_problem() is None
    assert run.cuda_problem() == "Made Up has compute capability (7, 5); they need (8, 0)"
    monkeypatch.setattr(torch.version, "cuda", None)
    assert run.gpu_problem() == (
        f"torch {torch.__version__} was built without CUDA: run with PYTHON=/path/to/a/python whose torch has it"
    )
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert run.gpu_problem() is None and run.cuda_problem() == f"torch {torch.__version__} is for ROCm"


def test_cuda_stages_are_skipped_where_the_kernels_cannot_be(monkeypatch, gpu, tmp_path):
    """Where they could be built and are not there, that is a failure."""
    monkeypatch.setattr(run, "cuda_state", lambda: "not built (no CUDA compiler)")
    for stage in (lambda: run.test(60, "cuda", tmp_path / "results.json", {}), lambda: run.sanitize(60, {})):
        with pytest.raises(run.Skipped, match="no CUDA kernels: no nvcc"):
            stage()
    monkeypatch.setattr(run, "cuda_problem", lambda: None)
    assert run.sanitize(60, {}) == "the CUDA backend is not built (no CUDA compiler)"
    assert run.test(60, "cuda", tmp_path / "results.json", {}) == "the CUDA backend is not built (no CUDA compiler)"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "triton" else name)
    for stage in (lambda: run.test(60, "triton", tmp_path / "results.json", {}), lambda: run.tune(60)):
        with pytest.raises(run.Skipped, match="Triton is not installed: pip install triton"):
            stage()


@pytest.mark.parametrize(
    ("arguments", "fails", "ran", "status"),
    [
        ("", "", "build cuda triton tune bench sanitizer", 0),
        ("--skip build tune", "", "cuda triton bench sanitizer", 0),
        ("", "cuda", "build cuda", 1),
        ("--keep-going", "cuda", "build cuda triton tune bench sanitizer", 1),
        ("--keep-going", "build", "build", 1),
    ],
)
def test_which_stages_run(monkeypatch, gpu, tmp_path, capsys, arguments, fails, ran, status):
    seen = []

    def stage(name):
        seen.append(name)
        return "broken" if name == fails else None

    monkeypatch.setattr(run, "gpu_problem", lambda: None)
    monkeypatch.setattr(run, "test", lambda seconds, backend, file, results: stage(backend))
    for name, function in (("build", "build"), ("tune", "tune"), ("bench", "bench"), ("sanitizer", "sanitize")):
        monkeypatch.setattr(run, function, lambda *_, name=name: stage(name))
    monkeypatch.setattr(sys, "argv", ["run", "--out", str(tmp_path), *arguments.split()])
    with pytest.raises(SystemExit) as ended:
        run.main()
    assert " ".join(seen) == ran and int(ended.value.code) == status
    assert f"{fails or 'bench'} {'FAILED (broken)' if fails else 'ok'}, 0 s" in capsys.readouterr().out.splitlines()[-1]


@pytest.mark.parametrize(
    ("problem", "more"),
    [("no nvcc", {"MINIFLOAT_CUDA": "0"}), (None, {"MINIFLOAT_CUDA_ARCHITECTURES": "sm_90a"})],
)
def test_a_build_without_nvcc_leaves_the_cuda_kernels_out(monkeypatch, gpu, tmp_path, capsys, problem, more):
    seen = []
    monkeypatch.setattr(run, "cuda_problem", lambda: problem)
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "run", lambda command, seconds, **more: seen.append(more) or (0, ""))
    assert run.build(60) is None
    seen[0].pop("MAX_JOBS")
    assert seen == [{"MINIFLOAT_CPU": "scalar"} | more]
    assert ("without the CUDA kernels: no nvcc" in capsys.readouterr().out) == bool(problem)


def test_state_of_the_extension_that_is_built():
    assert run.cuda_state() == cuda.state()


def test_tuning_calls_tune_as_it_wants_to_be_called(monkeypatch):
    """It reads its arguments before it looks for a GPU."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install triton")
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: it would be used")
    monkeypatch.setattr(sys, "argv", ["tune", *run.tune_arguments(40)])
    with pytest.raises(SystemExit, match="tune: this needs a GPU"):
        importlib.import_module(run.TUNE).main()
