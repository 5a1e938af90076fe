"""An interrupted run continues where it was: nothing is lost, nothing is done twice."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import minifloat as mf
from minifloat.ptq.gptq import GPTQ
from minifloat.ptq.store import Store
from ptq.nets import net, vectors

PROGRAM = """
import sys, time
sys.path.insert(0, {tests!r})
import torch
import minifloat as mf
from minifloat.ptq.gptq import GPTQ
from minifloat.ptq.store import Store
from ptq.nets import net, vectors

real = GPTQ.quantize
def slow(self, layer, hessian):
    print("quantizing", layer.name, flush=True)
    if layer.name == "blocks.1.up":
        time.sleep(600)
    return real(self, layer, hessian)
GPTQ.quantize = slow
torch.set_num_threads(1)
mf.calibrate(net(), vectors(), "gptq", "int4-row", "int8-row", resume={folder!r})
"""
NAMES = ["stem", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "head"]


def watched(monkeypatch):
    """The names of the layers that GPTQ quantizes from here on."""
    names, real = [], GPTQ.quantize
    monkeypatch.setattr(GPTQ, "quantize", lambda self, layer, h: names.append(layer.name) or real(self, layer, h))
    return names


def test_a_killed_run_continues(tmp_path, monkeypatch):
    torch.set_num_threads(1)
    folder = tmp_path / "run"
    program = PROGRAM.format(tests=str(Path(__file__).parents[1]), folder=str(folder))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if line.strip() == "quantizing blocks.1.up":
                break
        process.send_signal(signal.SIGKILL)
    assert line.strip() == "quantizing blocks.1.up" and process.returncode == -signal.SIGKILL
    names = watched(monkeypatch)
    q = mf.calibrate(net(), vectors(), "gptq", "int4-row", "int8-row", resume=folder)
    assert names == NAMES[3:]
    whole = mf.calibrate(net(), vectors(), "gptq", "int4-row", "int8-row")
    x = vectors()[0]
    assert torch.equal(q(x), whole(x))
    names.clear()
    again = mf.calibrate(net(), vectors(), "gptq", "int4-row", "int8-row", resume=folder)
    assert names == [] and torch.equal(again(x), whole(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": "gptq(block=32)"}, "its recipe is 'gptq', not .*block=32"),
        ({"weight": "int3-row"}, "its layers is"),
        ({"seed": 3}, "its seed is 0, not 3"),
        ({"data": vectors(seed=5)}, "its data is"),
    ],
)
def test_another_run_is_not_continued(tmp_path, change, message):
    given = {"model": net(), "data": vectors(), "recipe": "gptq", "weight": "int4-row", "resume": tmp_path / "run"}
    mf.calibrate(**given)
    with pytest.raises(ValueError, match=f"holds another run: {message}.*give another folder, or delete"):
        mf.calibrate(**given | change)


def test_another_model_is_not_continued(tmp_path):
    mf.calibrate(net(), vectors(), "gptq", "int4-row", resume=tmp_path / "run")
    model = net()
    with torch.no_grad():
        model.head.weight[0, 0] += 1
    with pytest.raises(ValueError, match="holds another run: its model is"):
        mf.calibrate(model, vectors(), "gptq", "int4-row", resume=tmp_path / "run")


@pytest.mark.parametrize("keep", [0.5, 0.0])
def test_damaged_files_are_named(tmp_path, keep):
    folder = tmp_path / "run"
    mf.calibrate(net(), vectors(), "gptq", "int4-row", resume=folder)
    files = sorted(folder.glob("*.pickle"))
    assert len(files) == 7  # six layers and the finished step
    for file in files:
        file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(ValueError, match=r"calibrate: .*\.pickle is damaged: delete it to compute it again"):
        mf.calibrate(net(), vectors(), "gptq", "int4-row", resume=folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(ValueError, match="run.json is damaged"):
        mf.calibrate(net(), vectors(), "gptq", "int4-row", resume=folder)


def test_a_folder_of_something_else(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="is not empty and holds no run.json"):
        mf.calibrate(net(), vectors(), "", "int4-row", resume=tmp_path)


class Interrupted(Exception):
    pass


@pytest.mark.parametrize(
    ("recipe", "activation"),
    [
        ("gptq + bias_correction", "int8-row"),
        ("scales(rule=mse) + input_ranges + gptq + bias_correction", "int8-tensor"),
        ("smoothquant + equalize + outliers(threshold=20) + gptq", "int8-row"),
    ],
)
def test_wherever_it_is_interrupted_the_result_is_the_same(tmp_path, monkeypatch, recipe, activation):
    args, x = (net(), vectors(2), recipe, "int4-row", activation), vectors()[0]
    whole, real = mf.calibrate(*args)(x), Store.save
    saves = []
    monkeypatch.setattr(Store, "save", lambda self, *a: saves.append(a) or real(self, *a))
    mf.calibrate(*args, resume=tmp_path / "all")
    for survive in range(0, len(saves), 3):
        left = [survive]

        def save(self, *a, left=left):
            if not left[0]:
                raise Interrupted
            left[0] -= 1
            real(self, *a)

        folder = tmp_path / f"after {survive}"
        monkeypatch.setattr(Store, "save", save)
        with pytest.raises(Interrupted):
            mf.calibrate(*args, resume=folder)
        again = []
        monkeypatch.setattr(Store, "save", lambda self, *a, again=again: again.append(a[:2]) or real(self, *a))
        assert torch.equal(mf.calibrate(*args, resume=folder)(x), whole)
        assert again == [a[:2] for a in saves[survive:]]  # nothing twice, nothing left out
