"""What of the CUDA backend can be checked without a GPU: the op's source, its state, and `make gpu`."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.cpp_extension import include_paths

from minifloat.ops import cuda

ROOT = Path(__file__).resolve().parents[2]
HOST_SOURCES = sorted((ROOT / "kernels/cuda").glob("*.cpp"))
CUDA_INCLUDE = Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "include"


@pytest.mark.skipif(
    shutil.which("g++") is None or not (CUDA_INCLUDE / "cuda_runtime.h").exists(),
    reason="the op's source was not checked: it takes g++ and CUDA's headers",
)
@pytest.mark.parametrize("source", ["csrc/cuda.cpp", *(f"kernels/cuda/{path.name}" for path in HOST_SOURCES)])
def test_host_sources_compile(source):
    """Against CUDA's own headers; of torch's, the one file that a build without CUDA lacks is in stubs/."""
    folders = [ROOT / "tests/cuda/stubs", ROOT / "kernels", ROOT / "csrc", *include_paths(), CUDA_INCLUDE]
    command = ["g++", "-std=c++20", "-fsyntax-only", "-Wall", "-Werror", *(f"-I{path}" for path in folders), source]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_whatever_is_compiled_is_built_anew_when_it_changes():
    """By make's own list of what the extension depends on; a build whose torch has CUDA compiles kernels/cuda too."""
    command = ["make", "-np", f"PYTHON={sys.executable}", "build"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    rule = next(line for line in done.stdout.splitlines() if line.startswith("build/built:"))
    folders = ("csrc", "kernels/cpu", "kernels/cuda")
    found = {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).glob("*.*")}
    assert {"kernels/cuda/lanes.cu", "kernels/cuda/decode.cuh", "csrc/cuda.cpp"} <= found
    assert found <= set(rule.split())


def test_state_says_what_is_missing():
    state = cuda.state()
    if not cuda.built():
        assert state == ("not built (no CUDA compiler)" if torch.version.cuda else "not built (torch has no CUDA)")
    elif not torch.cuda.is_available():
        assert state == "built, but there is no GPU"
    else:
        assert state.startswith(("available (", "too old a GPU ("))


@pytest.mark.skipif(cuda.built(), reason="the CUDA kernels are built: the GPU's tests prefer some of them")
def test_preferring_kernels_that_are_not_built():
    with pytest.raises(RuntimeError, match="the CUDA kernels are not built"), cuda.preferred("bits"):
        pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: `make gpu` would use it")
def test_make_gpu_fails_without_a_gpu():
    done = subprocess.run([sys.executable, "-m", "benchmarks.gpu.run"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "make gpu: nothing was built, tested or measured: " in done.stderr


def test_report_of_a_run(tmp_path):
    """A made-up run: the table divides by cuBLAS, leaves gaps where nothing was measured, and a plot appears."""
    sys.path.insert(0, str(ROOT))
    try:
        from benchmarks.gpu import report, timing
    finally:
        sys.path.remove(str(ROOT))
    case = {"n": 8192, "k": 8192}
    records = [
        {"contender": "ours", **case, "m": 1, "bits": 4, "time_us": 10.0},
        {"contender": "ours", **case, "m": 16, "bits": 4, "missing": "out of memory"},
        {"contender": "cuBLAS fp16", **case, "m": 1, "bits": 16, "time_us": 55.0},
        {"contender": "cuBLAS fp16", **case, "m": 16, "bits": 16, "time_us": 55.0},
    ]
    result = {"gpu": "Made Up", "date": "2026-01-01", "torch": "t", "cuda": "c", "method": "none", "records": records}
    text = report.table(result)
    assert "| ours | 10.0 (5.50x) | - | 11.2 |" in text
    report.plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert timing.copies_needed(8 << 20, 50 << 20) == 25
