"""mf.save: what is in the file, how it gets there, and what is refused."""

import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import minifloat as mf
from checkpoint.nets import X, assert_holds, assert_refused, net, quantized
from minifloat.checkpoint import file
from minifloat.formats import names


def test_weights_are_truly_bit_packed_on_disk(path):
    tensors, model = load_file(path), quantized()
    assert set(tensors) == set(model.state_dict())
    q = model.a.qtensor
    assert tensors["a.weight_packed"].shape == (64, 32) and torch.equal(tensors["a.weight_packed"], q.packed)
    assert tensors["a.weight_scales"].dtype == torch.uint8 and torch.equal(tensors["a.weight_scales"], q.scale_data)
    payload = sum(t.nbytes for t in tensors.values())
    weights = 64 * 32 + 64 * 2 + 64 * 32 + 64 * 2 * (2 + 1) + 10 * 32 + 10 * 4 + 4
    floats = (64 + 10 + 4 * 64) * 4 + 8
    assert payload == weights + floats
    assert os.path.getsize(path) < payload + 4000


def test_metadata_tells_every_spec(path):
    with safe_open(path, "pt") as opened:
        header = json.loads(opened.metadata()["minifloat"])
    assert header["version"] == 1 and header["aliases"] == {} and header["codebooks"] == {}
    assert header["layers"] == {
        "a": {"weight": "e2m1-g32-e8m0", "activation": "int8-row", "shape": [64, 64]},
        "b": {"weight": "uint4-g32-bf16-zp", "activation": None, "shape": [64, 64]},
        "head": {"weight": "e2m1-g16-e4m3fn", "activation": "int8-row", "shape": [10, 64]},
    }


def test_the_same_model_gives_the_same_bytes(path, tmp_path):
    mf.save(quantized(), tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


def test_codebooks_travel_with_the_file(tmp_path, monkeypatch):
    mf.Format.codebook("checkpoint_book", [-1.5, -0.25, 0.0, 0.10000000149011612, 1.0])
    model = mf.quantize_(net(), "checkpoint_book-row", "checkpoint_book-row", select="a")
    mf.save(model, tmp_path / "m")
    monkeypatch.delitem(names._codebooks, "checkpoint_book")  # as in a new process
    loaded = mf.load(net(seed=1), tmp_path / "m")
    assert torch.equal(loaded(X), model(X)) and mf.Format.parse("checkpoint_book").table[0] == -1.5
    monkeypatch.delitem(names._codebooks, "checkpoint_book")
    mf.Format.codebook("checkpoint_book", [1.0, 2.0])
    assert_refused(net(), tmp_path / "m", "'codebooks': codebook 'checkpoint_book' already means other values")
    monkeypatch.delitem(names._codebooks, "checkpoint_book")


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["save_file", "os.fsync", "os.replace"])
def test_an_interrupted_save_leaves_the_old_file(path, monkeypatch, step, failure):
    def fail(*args):
        if step == "save_file":
            with open(args[1], "wb") as half:
                half.write(b"half")
        raise failure

    before = path.read_bytes()
    monkeypatch.setattr(*((file, step) if step == "save_file" else (os, step.removeprefix("os."))), fail)
    with pytest.raises(type(failure)):
        mf.save(quantized(seed=1), path)
    assert path.read_bytes() == before and os.listdir(path.parent) == [path.name]


def test_save_replaces_what_a_link_points_to(path, tmp_path):
    os.symlink(path, tmp_path / "link")
    mf.save(quantized(seed=1), tmp_path / "link")
    assert os.path.islink(tmp_path / "link")
    assert_holds(mf.load(net(), path), quantized(seed=1))


def test_save_gives_the_file_the_usual_permissions(path):
    (path.parent / "plain").touch()
    assert path.stat().st_mode == (path.parent / "plain").stat().st_mode
    path.chmod(0o640)
    mf.save(quantized(seed=1), path)
    assert path.stat().st_mode & 0o777 == 0o640


def test_save_refuses_a_missing_folder(tmp_path):
    with pytest.raises(FileNotFoundError):
        mf.save(quantized(), tmp_path / "no" / "m")


class WithExtraState(nn.Module):
    def get_extra_state(self):
        return {"step": 3}


def test_save_refuses_what_it_cannot_hold(tmp_path):
    model = nn.ModuleDict({"part": WithExtraState()})
    with pytest.raises(ValueError, match=r"'part' \(WithExtraState\) has a get_extra_state of its own"):
        mf.save(model, tmp_path / "m")
    with pytest.raises(ValueError, match="'bias' has no dense values .*meta"):
        mf.save(nn.Linear(2, 2, device="meta"), tmp_path / "m")
    with pytest.raises(ValueError, match="'a.layout'|meta device and has no values"):
        mf.save(quantized().to("meta"), tmp_path / "m")
    sparse = nn.Module()
    sparse.register_buffer("s", torch.eye(3).to_sparse())
    with pytest.raises(ValueError, match="'s' has no dense values .*sparse"):
        mf.save(sparse, tmp_path / "m")
    assert os.listdir(tmp_path) == []


def test_save_refuses_two_codebooks_of_one_name(tmp_path, monkeypatch):
    mf.Format.codebook("checkpoint_twice", [1.0, 2.0])
    model = mf.quantize_(net(), "checkpoint_twice-row", select="a")
    monkeypatch.delitem(names._codebooks, "checkpoint_twice")
    mf.Format.codebook("checkpoint_twice", [1.0, 3.0])
    mf.quantize_(model, "checkpoint_twice-row", select="b")
    with pytest.raises(ValueError, match="codebook 'checkpoint_twice' already means other values"):
        mf.save(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []
