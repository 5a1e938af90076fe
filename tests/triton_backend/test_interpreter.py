"""Runs the kernels' tests on the CPU where there is no GPU.

Triton reads TRITON_INTERPRET when it is imported, so they run in processes of their own.
"""

import importlib.util
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

import minifloat as mf

ROOT, FOLDER = Path(__file__).parents[2], "tests/triton_backend"
# In how many parts each file is run, so that pytest-xdist can spread them: a part takes a minute or less.
FILES = {"test_linear.py": 8, "test_scaled.py": 2, "test_storage.py": 2, "test_bad_input.py": 1}
PARTS = [(name, index) for name, count in FILES.items() for index in range(count)]
OPS = ("linear", "linear_backward", "pack_weight", "restore_weight", "pack", "unpack", "quantize", "dequantize")


@cache
def collected() -> tuple[str, ...]:
    """Every test of FILES, in the order in which pytest finds them."""
    output = interpreted(["--collect-only", *(f"{FOLDER}/{name}" for name in FILES)])
    return tuple(line for line in output.splitlines() if line.startswith(FOLDER) and "::" in line)


def part(name: str, index: int) -> list[str]:
    """Every eighth test of a file in eight parts: long tests stand side by side in it, and so get into all parts."""
    return [test for test in collected() if test.startswith(f"{FOLDER}/{name}::")][index :: FILES[name]]


def interpreted(arguments: list[str]) -> str:
    """What pytest prints about them, from a process in which Triton interprets."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install triton")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU, which runs these tests itself")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize(("name", "index"), PARTS)
def test_interpreted(name, index):
    tests = part(name, index)
    output = interpreted(["--durations=5", *tests])
    print(output[-5000:])
    assert re.search(rf"^{len(tests)} passed", output, re.M) and " skipped" not in output


def test_every_test_is_interpreted_once():
    dealt_out = [test for name, index in PARTS for test in part(name, index)]
    assert sorted(dealt_out) == sorted(collected()) and len(set(dealt_out)) == len(dealt_out)
    for name in FILES:  # the collection itself is whole
        functions = re.findall(r"^def (test_\w+)", (ROOT / FOLDER / name).read_text(), re.M)
        assert {f"{FOLDER}/{name}::{function}" for function in functions} == {
            test.split("[")[0] for test in dealt_out if f"/{name}::" in test
        }


def test_importing_minifloat_does_not_import_triton():
    script = "import sys, minifloat as mf; print('triton' in sys.modules, mf.backends()['triton'])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("False ")


def test_without_triton():
    """The backend says how to get it, and nothing else notices."""
    script = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "triton" else find(name, *rest)
sys.modules["triton"] = None  # import triton fails
import torch, minifloat as mf
q, x = mf.quantize(torch.randn(8, 64), "int4-g32"), torch.randn(2, 64)
mf.linear(x, q)
mf.nn.QLinear.from_float(torch.nn.Linear(64, 8))(x)
print(mf.backends()["triton"])
try:
    mf.linear(x, q, backend="triton")
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    state, error = done.stdout.splitlines()
    assert state == "not installed: pip install triton"
    assert error.startswith("linear: backend 'triton' is not installed: pip install triton; usable here: cpu")


def test_a_layer_without_triton_says_how_to_get_it():
    """Where a weight is laid out for the backend, as QLinear.cuda() does, and where x meets it."""
    script = """
import sys
sys.modules["triton"] = None  # import triton fails
import torch, minifloat as mf
from minifloat.ops import triton
q = mf.quantize(torch.randn(8, 64), "int4-g32")
weight, plan = mf.ops.prepare(q, None)
for call in (lambda: triton.prepare(q, None), lambda: triton.linear(torch.randn(2, 64), weight, plan, None, 8)):
    try:
        call()
    except ModuleNotFoundError as error:
        print(error.name, error)
"""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}  # takes CPU tensors for the backend's
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    wanted = "triton CUDA tensors without compiled CUDA kernels need Triton, which is not installed: pip install triton"
    assert done.stdout.splitlines() == [wanted] * 2


@pytest.mark.parametrize("op", OPS)
def test_ops_of_cuda_tensors_have_a_kernel(op):
    """Triton's, where the extension has no CUDA kernels."""
    assert torch._C._dispatch_has_kernel_for_dispatch_key(f"minifloat::{op}", "CUDA")


def test_backends_name_triton_and_cuda():
    states = mf.backends()
    assert list(states) == ["cpu", "cuda", "triton", "reference"]
    assert states["triton"].startswith(("available", "interpreter", "not installed", "without a GPU"))
