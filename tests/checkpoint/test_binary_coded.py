"""Binary-coded layers in files."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import minifloat as mf
from checkpoint.nets import assert_refused
from minifloat.checkpoint.file import KEY, checksum
from minifloat.nn import BinaryCodedLinear

X = torch.linspace(-1, 1, 3 * 64).reshape(3, 64)


def floats(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10), nn.Linear(10, 6)).eval()


def coded(seed=0, bits=3):
    model = floats(seed)
    model[0] = BinaryCodedLinear.from_float(model[0], bits, 32, "bfloat16", "int8-row")
    model[2] = BinaryCodedLinear.from_float(model[2], 2, None, "e4m3fn")
    model[3] = mf.nn.QLinear.from_float(model[3], "int4-row")
    return model.eval()


@pytest.fixture
def path(tmp_path):
    mf.save(coded(), tmp_path / "m")
    return tmp_path / "m"


@pytest.mark.parametrize("target", [floats, coded, lambda seed: coded(seed, 5), lambda seed: floats(seed).to("meta")])
def test_loads_into_what_is_float_or_coded(path, target):
    source, model = coded(), mf.load(target(1), path)
    assert torch.equal(model(X), source(X)) and repr(model) == repr(source)
    state, expected = model.state_dict(), source.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in expected)


def test_the_file_says_how_many_planes(path):
    with safe_open(path, "pt") as file:
        layers = json.loads(file.metadata()[KEY])["layers"]
    assert layers["0"] == {
        "activation": "int8-row",
        "class": "BinaryCodedLinear",
        "planes": 3,
        "shape": [64, 64],
        "weight": "binary-g32-bf16",
    }
    assert layers["2"]["planes"] == 2 and "planes" not in layers["3"]


def test_tied_layers_are_stored_once(tmp_path):
    model = nn.ModuleList([nn.Linear(64, 8, bias=False)] * 2)
    model[0] = model[1] = BinaryCodedLinear.from_float(model[0], 3, 32)
    mf.save(model, tmp_path / "m")
    loaded = mf.load(nn.ModuleList([nn.Linear(64, 8, bias=False)] * 2), tmp_path / "m")
    assert loaded[0] is loaded[1] and torch.equal(loaded[1](X), model[0](X))


def test_a_quantized_layer_of_another_class_does_not_take_it(path):
    other = mf.quantize_(floats(), "int4-row")
    assert_refused(other, path, "holds a quantized layer '0', but the model has a QLinear there")
    mf.save(other, path)
    assert_refused(coded(), path, "holds a quantized layer '0', but the model has a BinaryCodedLinear there")


def setting(layer, key, value):
    def change(header, tensors):
        if value is None:
            del header["layers"][layer][key]
        else:
            header["layers"][layer][key] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (setting("0", "planes", None), "metadata of 'layers': metadata of layer '0': no entry 'planes'"),
        (setting("0", "planes", 0), "layer '0': a binary-coded weight has 1 to 8 planes, got 0"),
        (setting("0", "planes", 9), "1 to 8 planes, got 9"),
        (setting("0", "planes", "3"), "1 to 8 planes, got '3'"),
        (
            setting("0", "planes", 2),
            r"0.weight, binary-g32-bf16 .*: codes .* \(64, 16\), got .*64, 24",
        ),
        (setting("0", "weight", "int3-g32-bf16"), "layer '0': the planes .* are 'binary' .*, not int3-g32-bf16"),
        (setting("0", "weight", "binary-row-bf16"), "layer '0': the planes .* not binary-row-bf16"),
        (setting("0", "weight", "binary-g48-bf16"), "layer '0': binary-g48-bf16: K=64 is not a multiple of .* 48"),
        (setting("0", "weight", "binary-g64-bf16"), r"0.weight, binary-g64-bf16 .*scales .* \(64, 3\), got .*64, 6"),
        (
            setting("0", "shape", [64, 96]),
            "'0' has in_features=96, out_features=64 in the file, but in_features=64",
        ),
        (setting("0", "class", "QLinear"), "layer '0': planes=3 does not belong to class 'QLinear'"),
        (setting("3", "planes", 1), "layer '3': planes=1 does not belong to class 'QLinear'"),
        (setting("3", "class", "BinaryCodedLinear"), "layer '3': the planes .* not int4-row"),
        (lambda header, tensors: tensors.pop("0.weight_scales"), "tensor '0.weight_scales' is missing"),
    ],
)
def test_mislabelled_files(path, change, message):
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()[KEY])
    tensors = load_file(path)
    change(header, tensors)
    header["checksum"] = checksum(header, tensors)
    save_file(tensors, path, {KEY: json.dumps(header)})
    assert_refused(floats(), path, message)


def test_a_flipped_code_is_noticed(path):
    content = bytearray(path.read_bytes())
    content[-40] ^= 4
    path.write_bytes(content)
    assert_refused(floats(), path, "the file is damaged: its checksum is")
