"""Damaged, cut off and mislabelled files, and files that do not fit: each is named, and the model stays as it was."""

import json
import struct

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import minifloat as mf
from checkpoint.nets import assert_refused, net, quantized
from minifloat.checkpoint.file import KEY, checksum, read


def test_a_flipped_bit_in_any_byte_is_noticed(tmp_path):
    """One bit of each byte, one at a time: refused, or (in the spacing of the header) the same content."""
    path = tmp_path / "m"
    mf.save(mf.quantize_(nn.Sequential(nn.Linear(8, 2), nn.Linear(8, 1)), "int4-g8", select="0"), path)
    good, expected, accepted = path.read_bytes(), read(path), []
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << at % 8
        path.write_bytes(bad)
        try:
            found = read(path)
        except ValueError:
            continue
        accepted.append(at)
        assert found.layers == expected.layers and found.aliases == expected.aliases
        assert found.tensors.keys() == expected.tensors.keys()
        assert all(torch.equal(found.tensors[name], tensor) for name, tensor in expected.tensors.items())
    header_bytes = 8 + struct.unpack("<Q", good[:8])[0]
    assert all(at < header_bytes for at in accepted) and len(accepted) < 10, accepted


@pytest.mark.parametrize("keep", [0, 4, 8, 300, -1])
def test_truncated_files(path, keep):
    content = path.read_bytes()
    path.write_bytes(content[:keep])
    assert_refused(net(), path, "the file is damaged or cut off, or is not a safetensors file")


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "text").write_text("hello" * 100)
    assert_refused(net(), tmp_path / "text", "not a safetensors file")
    save_file(net().state_dict(), tmp_path / "plain")
    assert_refused(net(), tmp_path / "plain", "the metadata has no entry 'minifloat': mf.save did not write this file")
    with pytest.raises(FileNotFoundError, match="missing"):
        mf.load(net(), tmp_path / "missing")


def rewrite(path, change, seal=True):
    """Apply change(header, tensors) to the file; seal: record the right checksum, as a faulty writer would."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[KEY])
    tensors = load_file(path)
    change(header, tensors)
    if seal:
        header["checksum"] = checksum(header, tensors)
    save_file(tensors, path, {KEY: json.dumps(header)})


def setting(*keys, value):
    """A change that sets header[key][key]... to value, or removes it for None."""

    def change(header, tensors):
        for key in keys[:-1]:
            header = header[key]
        header[keys[-1]] = value

    return change


def tensor(name, change):
    def apply(header, tensors):
        tensors[name] = change(tensors[name])

    return apply


MISLABELLED = [
    (setting("version", value=2), "format version 2 is unknown: this minifloat reads version 1"),
    (setting("version", value=None), "format version None is unknown"),
    (setting("layers", value=[]), "metadata of 'layers': "),
    (setting("layers", "a", value="int4"), "metadata of 'layers': metadata of layer 'a': "),
    (setting("layers", "a", "weight", value="int4"), "layer 'a': 'int4' does not say where scales live"),
    (setting("layers", "a", "weight", value="e9m9-row"), "layer 'a': .*e9m9"),
    (setting("layers", "a", "activation", value="int8-g48"), "layer 'a': activation int8-g48: K=64 is not a multiple"),
    (setting("layers", "a", value={"weight": "int4-row"}), "layer 'a': no entry 'shape'"),
    (setting("layers", "a", "shape", value=[64]), "layer 'a': not enough values"),
    (setting("layers", "a", "shape", value=[64, -64]), "layer 'a': shape has an extent of -64"),
    (setting("layers", "a", "shape", value=[64, 64.0]), "layer 'a': shape has an extent of 64.0"),
    (setting("layers", "a", "shape", value=[64, 96]), "layer 'a' has in_features=96, out_features=64 in the file, but"),
    (setting("layers", "a", "weight", value="int8-g32-e8m0"), r"a.weight, int8-g32-e8m0 of shape \(64, 64\): .*64, 32"),
    (setting("layers", "a", "weight", value="int4-g32"), "a.weight, int4-g32 of shape .*scales must be torch.float32"),
    (
        setting("layers", "a", "weight", value="nvfp4"),
        "tensor 'a.weight_tensor_scale' is missing, which e2m1-g16-e4m3fn",
    ),
    (
        setting("layers", "b", "weight", value="uint4-g32-bf16"),
        "tensor 'b.weight_zero_points' does not belong to uint4",
    ),
    (setting("layers", "z", value={"weight": "int4-row", "activation": None, "shape": [1, 1]}), "no such layer"),
    (
        setting("layers", "norm", value={"weight": "int4-row", "activation": None, "shape": [1, 1]}),
        "a BatchNorm1d there",
    ),
    (setting("aliases", "x", value="nowhere"), "'aliases': 'x' is to share memory with 'nowhere', but .* no 'nowhere'"),
    (setting("aliases", "a.bias", value="head.bias"), "'a.bias' is to share memory .* stores 'a.bias' itself"),
    (setting("aliases", value=None), "metadata of 'aliases'"),
    (setting("codebooks", value={"Bad Name": [1.0]}), "metadata of 'codebooks': codebook name 'Bad Name'"),
    (lambda header, tensors: header["layers"].pop("a"), "tensor 'a.weight' is missing"),
    (
        lambda header, tensors: tensors.pop("a.weight_packed"),
        "tensor 'a.weight_packed' is missing, which e2m1-g32-e8m0",
    ),
    (lambda header, tensors: tensors.pop("a.weight_scales"), "tensor 'a.weight_scales' is missing"),
    (lambda header, tensors: tensors.pop("head.bias"), "tensor 'head.bias' is missing, which the model has"),
    (
        lambda header, tensors: tensors.update(extra=torch.zeros(1)),
        "tensor 'extra' is in the file, but not in the model",
    ),
    (tensor("a.weight_packed", lambda t: t[:-1]), r"a.weight, e2m1-g32-e8m0 of shape \(64, 64\): .*63, 32"),
    (tensor("a.weight_scales", lambda t: t.float()), "a.weight, e2m1-g32-e8m0.*scales must be torch.uint8.*float32"),
    (tensor("a.weight_scales", lambda t: t | 0xFF), "a.weight, e2m1-g32-e8m0.*scale at .0, 0. is nan"),
    (tensor("head.weight_tensor_scale", lambda t: t * np.inf), "head.weight, e2m1-g16-e4m3fn.*tensor scale is inf"),
    (tensor("head.bias", lambda t: t.half()), r"'head.bias' is torch.float16 \(10,\) in the file, but torch.float32"),
    (
        tensor("norm.weight", lambda t: t[:3]),
        r"'norm.weight' is .*\(3,\) in the file, but torch.float32 \(64,\) in the mod",
    ),
]


@pytest.mark.parametrize(("change", "text"), MISLABELLED)
@pytest.mark.parametrize("target", [net, quantized])
def test_mislabelled_files(path, change, text, target):
    rewrite(path, change)
    model = target(seed=1)
    if "a.weight' is missing" in text and target is quantized:
        text = "layer 'a' is quantized in the model, but float in the file: load into a float model"
    assert_refused(model, path, text)


@pytest.mark.parametrize(("change", "text"), MISLABELLED[2:])
def test_the_checksum_notices_them_first(path, change, text):
    rewrite(path, change, seal=False)
    assert_refused(net(), path, "the file is damaged: its checksum is [0-9a-f]{8}, but [0-9a-f]{8} was recorded")


def test_metadata_that_is_not_json(path):
    tensors = load_file(path)
    save_file(tensors, path, {KEY: "{"})
    assert_refused(net(), path, "the metadata entry 'minifloat' is damaged: it is not JSON")
    save_file(tensors, path, {KEY: "3"})
    assert_refused(net(), path, "format version None is unknown")


def test_codes_out_of_range(tmp_path):
    mf.Format.codebook("checkpoint_three", [-1.0, 0.0, 1.0])
    model, path = mf.quantize_(net(), "checkpoint_three-row", select="a"), tmp_path / "m"
    mf.save(model, path)
    rewrite(path, tensor("a.weight_packed", lambda t: t | 0x03))
    assert_refused(net(), path, r"a.weight, checkpoint_three-row of shape \(64, 64\): .*code 3 at \(0, 0\)")


def test_a_float_layer_whose_bias_only_the_file_has(tmp_path):
    mf.save(mf.quantize_(nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 2)), "int4-g8", select="0"), tmp_path / "m")
    other = nn.Sequential(nn.Linear(8, 2), nn.Linear(2, 2, bias=False))
    assert_refused(other, tmp_path / "m", "tensor '1.bias' is in the file, but not in the model")


def test_models_that_do_not_fit(path):
    other = net()
    other.head = nn.Linear(64, 11)
    assert_refused(other, path, "layer 'head' has in_features=64, out_features=10 in the file, but .*out_features=11")
    other.head = nn.Identity()
    assert_refused(other, path, "a quantized layer 'head', but the model has a Identity there")
    other.head, other.b = nn.Linear(64, 10), nn.Linear(64, 64)
    assert_refused(other, path, "tensor 'b.bias' is missing, which the model has")
    assert_refused(net().half(), path, "torch.float32 .* in the file, but torch.float16")
    other = net()
    other.many = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    assert_refused(other, path, "tensor 'many.0.weight' is missing(.|\n)*and 13 more like these$")
