"""Emitted folders stand on their own: lint, simulate and synthesise with the folder's own Makefile."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from minifloat.formats import Format
from minifloat.rtl import tools
from minifloat.rtl.dot import Dot
from minifloat.rtl.emit import emit
from minifloat.rtl.gemm import Gemm
from minifloat.rtl.mac import Pair, mac

from .support import need, need_simulator
from .test_constant import make as make_constant
from .test_layer import LAYERS

DESIGNS = [
    mac("e2m1", "e4m3fn", depth=3),
    Dot(Pair(Format.parse("int4"), Format.parse("int8")), lanes=4, depth=2),
    next(layer for layer in LAYERS if layer.name == "to_e4m3fn"),
    Gemm(Pair(Format.parse("e2m1"), Format.parse("e2m3")), rows=2, cols=3, k=64, depth=2),
    make_constant(0),
]


def make(folder, target: str) -> str:
    done = subprocess.run(
        ["make", "-C", str(folder), target, f"PYTHON={sys.executable}"], capture_output=True, text=True, env=os.environ
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_folder_lints(design, tmp_path):
    need(tools.verilator)
    make(emit(design, tmp_path / "out"), "lint")


@pytest.mark.parametrize("design", DESIGNS[1:], ids=lambda d: d.name)
def test_folder_simulates(design, tmp_path):
    need_simulator()
    assert "PASS" in make(emit(design, tmp_path / "out"), "sim")


def test_a_wrong_result_fails_the_simulation(tmp_path):
    need_simulator()
    folder = emit(DESIGNS[0], tmp_path / "out")
    vectors = folder / "tb" / "out.hex"
    lines = vectors.read_text().splitlines()
    lines[-5] = f"{int(lines[-5], 16) ^ 1:x}"
    vectors.write_text("\n".join(lines))
    again = subprocess.run(
        ["make", "-C", str(folder), "sim", f"PYTHON={sys.executable}"], capture_output=True, text=True
    )
    assert again.returncode != 0 and "FAIL" in again.stdout


@pytest.mark.parametrize("design", DESIGNS, ids=lambda d: d.name)
def test_icarus_agrees(design, tmp_path):
    if not shutil.which("iverilog"):
        pytest.skip("Icarus is not installed: apt-get install iverilog")
    assert "PASS" in make(emit(design, tmp_path / "out"), "icarus")


def test_folder_synthesises(tmp_path):
    need(tools.yosys)
    assert "Estimated number of LCs" in make(emit(DESIGNS[2], tmp_path / "layer"), "synth")
    folder = emit(DESIGNS[0], tmp_path / "mac", with_area=True)
    report = json.loads((folder / "report.json").read_text())
    assert report["area"]["lut"] > 0 and report["accumulator_bits"] == DESIGNS[0].accumulator_bits


def test_an_existing_folder_is_kept(tmp_path):
    emit(DESIGNS[0], tmp_path / "out")
    with pytest.raises(FileExistsError, match="overwrite"):
        emit(DESIGNS[0], tmp_path / "out")
    emit(DESIGNS[0], tmp_path / "out", overwrite=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep me")
    with pytest.raises(FileExistsError, match="was not written by this command"):
        emit(DESIGNS[0], tmp_path / "mine", overwrite=True)
