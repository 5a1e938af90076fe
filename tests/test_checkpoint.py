"""mf.save and mf.load: what is in the file, what comes back, and that a bad file or a bad fit changes nothing."""

import json
import os
import struct

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

import minifloat as mf
from minifloat.checkpoint.file import KEY, checksum, read
from minifloat.nn import QLinear

X = torch.linspace(-1, 1, 3 * 64).reshape(3, 64)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(64, 64)
        self.b = nn.Linear(64, 64, bias=False)
        self.norm = nn.BatchNorm1d(64)
        self.head = nn.Linear(64, 10)
        self.register_buffer("scratch", torch.rand(2), persistent=False)

    def forward(self, x):
        return self.head(self.norm(self.b(self.a(x)).relu()))


OVERRIDES = {"b": {"weight": "uint4-g32-bf16-zp", "activation": None}, "head": {"weight": "nvfp4"}}


def net(seed=0):
    torch.manual_seed(seed)
    model = Net().eval()
    with torch.no_grad():
        model.norm.running_mean.uniform_()
    return model


def quantized(seed=0):
    return mf.quantize_(net(seed), "e2m1-g32-e8m0", "int8-row", overrides=OVERRIDES)


@pytest.fixture
def path(tmp_path):
    """A file with quantized(0) in it."""
    mf.save(quantized(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def fingerprint(model):
    """Modules and tensors by identity, and the values: what must not change when a load fails."""
    modules = [(name, id(module)) for name, module in model.named_modules()]
    state = model.state_dict(keep_vars=True)
    ids = [(name, id(t)) for name, t in (*model.named_parameters(), *model.named_buffers())]
    return modules, ids, {name: t.detach().float().sum().item() for name, t in state.items() if not t.is_meta}


def assert_refused(model, path, text):
    """load raises ValueError that names the file and has this text, and leaves the model as it was."""
    before = fingerprint(model)
    with pytest.raises(ValueError, match=text) as raised:
        mf.load(model, path)
    assert str(raised.value).startswith(f"load: {path}: ")
    assert fingerprint(model) == before


# --- what is in the file ---


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
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["minifloat"])
    assert header["version"] == 1 and header["aliases"] == {} and header["codebooks"] == {}
    assert header["layers"] == {
        "a": {"weight": "e2m1-g32-e8m0", "activation": "int8-row", "shape": [64, 64]},
        "b": {"weight": "uint4-g32-bf16-zp", "activation": None, "shape": [64, 64]},
        "head": {"weight": "e2m1-g16-e4m3fn", "activation": "int8-row", "shape": [10, 64]},
    }


def test_the_same_model_gives_the_same_bytes(path, tmp_path):
    mf.save(quantized(), tmp_path / "again")
    assert path.read_bytes() == (tmp_path / "again").read_bytes()


# --- round trips ---


def assert_holds(model, source):
    assert torch.equal(model(X), source(X))
    state, expected = model.state_dict(), source.state_dict()
    assert state.keys() == expected.keys() and all(torch.equal(state[k], expected[k]) for k in state)
    assert repr(model) == repr(source)


def test_into_a_float_model(path):
    model = net(seed=1)
    kept = dict(model.named_parameters()), model.scratch, model.norm
    assert mf.load(model, path) is model
    assert_holds(model, quantized())
    assert model.a.bias is kept[0]["a.bias"] and model.norm is kept[2] and model.scratch is kept[1]
    assert not model.a.training


@pytest.mark.parametrize("spec", ["e2m1-g32-e8m0", "int8-row"])
def test_into_a_quantized_model_of_any_format(path, spec):
    model = mf.quantize_(net(seed=1), spec)
    layers = model.a, model.b, model.head
    mf.load(model, path)
    assert_holds(model, quantized())
    assert (model.a, model.b, model.head) == layers


def test_into_a_meta_model(path):
    with torch.device("meta"):
        model = Net().eval()
    assert_refused(model, path, "'scratch' is on the meta device and not in the file: give it values first")
    model.scratch = torch.zeros(2)
    mf.load(model, path)
    assert_holds(model, quantized())
    assert model.a.bias.requires_grad and not model.norm.running_mean.requires_grad
    model = quantized(seed=1).to("meta")
    model.scratch = torch.zeros(2)
    mf.load(model, path)
    assert_holds(model, quantized())


def test_loading_does_not_keep_the_file(path):
    with torch.device("meta"):
        model = Net().eval()
    model.scratch = torch.zeros(2)
    mf.load(model, path)
    before = model(X)
    with open(path, "r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    assert torch.equal(model(X), before)


def test_a_model_without_quantized_layers(tmp_path):
    mf.save(net(), tmp_path / "m")
    assert_holds(mf.load(net(seed=1), tmp_path / "m"), net())


def test_a_model_that_is_a_qlinear(tmp_path):
    layer = QLinear.from_float(nn.Linear(64, 4), "int4-g32", "int8-row")
    mf.save(layer, tmp_path / "m")
    other = QLinear.from_float(nn.Linear(64, 4), "mxfp4")
    mf.load(other, tmp_path / "m")
    assert_holds(other, layer)
    assert_refused(nn.Linear(64, 4), tmp_path / "m", "a single nn.Linear cannot become a QLinear in place")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_float_dtype(dtype, tmp_path):
    model = quantized().to(dtype)
    mf.save(model, tmp_path / "m")
    other = mf.load(net(seed=1).to(dtype), tmp_path / "m")
    assert other.a.bias.dtype == dtype and torch.equal(other.a.bias, model.a.bias)
    assert torch.equal(other.a.weight, model.a.weight)


def test_compiled_models_have_the_names_of_plain_ones(path, tmp_path):
    model = torch.compile(quantized(), backend="eager")
    mf.save(model, tmp_path / "m")
    assert path.read_bytes() == (tmp_path / "m").read_bytes()
    compiled = torch.compile(net(seed=1), backend="eager")
    assert mf.load(compiled, path) is compiled
    assert torch.equal(compiled(X), quantized()(X))


def test_hooks_and_gradients_survive_a_load(path):
    model, seen = net(seed=1), []
    model.a.register_forward_hook(lambda *_: seen.append("a"))
    mf.load(model, path)
    x = X.clone().requires_grad_()
    model(x).sum().backward()
    assert seen == ["a"] and x.grad.abs().sum() > 0 and model.a.bias.grad is not None


def test_awkward_tensors(tmp_path):
    def make(fill):
        model = nn.Module()
        base = torch.arange(24.0).reshape(4, 6) + fill
        model.register_buffer("transposed", base.t())
        model.register_buffer("part", base[1:3, ::2])
        model.register_buffer("whole", base)
        model.register_buffer("expanded", torch.full((1, 3), fill).expand(5, 3))
        model.register_buffer("empty", torch.zeros(0, 3))
        model.register_buffer("scalar", torch.tensor(fill))
        model.register_buffer("flags", torch.tensor([True, False]))
        model.register_buffer("nothing", None)
        model.weight = nn.Parameter(torch.full((2, 2), fill), requires_grad=False)
        return model

    source = make(1.0)
    mf.save(source, tmp_path / "m")
    model = mf.load(make(7.0), tmp_path / "m")
    assert {n: t.tolist() for n, t in model.state_dict().items()} == {
        n: t.tolist() for n, t in source.state_dict().items()
    }
    assert not model.weight.requires_grad


# --- shared tensors ---


class Tied(nn.Module):
    def __init__(self, tie=True):
        super().__init__()
        self.embed = nn.Embedding(40, 64)
        self.a, self.b = nn.Linear(64, 40), nn.Linear(64, 40)
        self.head = nn.Linear(64, 40, bias=False)
        if tie:
            self.b.weight, self.b.bias, self.head.weight = self.a.weight, self.a.bias, self.embed.weight


def tied():
    torch.manual_seed(0)
    return mf.quantize_(Tied(), "int4-g32", select="[ab]")


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_shared_tensors_are_stored_once_and_tied_again(tmp_path, tie, device):
    mf.save(tied(), tmp_path / "m")
    assert set(load_file(tmp_path / "m")) == {"a.weight_packed", "a.weight_scales", "a.bias", "embed.weight"}
    with torch.device(device):
        model = Tied(tie)
    mf.load(model, tmp_path / "m")
    assert model.a.layout is model.b.layout and model.a.bias is model.b.bias
    assert model.head.weight is model.embed.weight
    x = torch.randn(2, 64)
    assert torch.equal(model.b(x), tied().b(x)) and torch.equal(model.head(x), tied().head(x))


def test_a_module_used_twice(tmp_path):
    def make(shared=True):
        first = nn.Linear(64, 64, bias=False)
        return nn.Sequential(first, first if shared else nn.Linear(64, 64, bias=False))

    source = mf.quantize_(make(), "int4-g32")
    mf.save(source, tmp_path / "m")
    model = mf.load(make(), tmp_path / "m")
    assert model[0] is model[1] and torch.equal(model(X), source(X))
    apart = mf.load(make(shared=False), tmp_path / "m")
    assert apart[0] is not apart[1] and apart[0].layout is apart[1].layout and torch.equal(apart(X), source(X))
    mf.save(mf.quantize_(make(shared=False), "int4-g32"), tmp_path / "apart")
    assert_refused(make(), tmp_path / "apart", "'0' and '1' are one module in the model, but two layers in the file")


def test_a_tie_that_the_file_contradicts(tmp_path):
    mf.save(Tied(tie=False), tmp_path / "m")
    assert_refused(Tied(), tmp_path / "m", "'embed.weight' and 'head.weight' are one tensor in the model, but differ")


def test_equal_tensors_that_are_not_shared_stay_apart(tmp_path):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].load_state_dict(model[0].state_dict())
    mf.save(model, tmp_path / "m")
    other = mf.load(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), tmp_path / "m")
    assert other[0].weight is not other[1].weight


# --- codebooks ---


def test_codebooks_travel_with_the_file(tmp_path, monkeypatch):
    from minifloat.formats import names

    mf.Format.codebook("checkpoint_book", [-1.5, -0.25, 0.0, 0.1 + 0.0 * 7 - 0.1 + 0.125, 1.0])
    model = mf.quantize_(net(), "checkpoint_book-row", "checkpoint_book-row", select="a")
    mf.save(model, tmp_path / "m")
    monkeypatch.delitem(names._codebooks, "checkpoint_book")  # as in a new process
    loaded = mf.load(net(seed=1), tmp_path / "m")
    assert torch.equal(loaded(X), model(X)) and mf.Format.parse("checkpoint_book").table[0] == -1.5
    monkeypatch.delitem(names._codebooks, "checkpoint_book")
    mf.Format.codebook("checkpoint_book", [1.0, 2.0])
    assert_refused(net(), tmp_path / "m", "'codebooks': codebook 'checkpoint_book' already means other values")
    monkeypatch.delitem(names._codebooks, "checkpoint_book")


# --- damaged files ---


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


def test_models_that_do_not_fit(path):
    other = net()
    other.head = nn.Linear(64, 11)
    assert_refused(other, path, "layer 'head' has in_features=64, out_features=10 in the file, but .*out_features=11")
    other.head = nn.Linear(64, 10, bias=False)
    assert_refused(other, path, "tensor 'head.bias' is in the file, but not in the model")
    other.head = nn.Identity()
    assert_refused(other, path, "a quantized layer 'head', but the model has a Identity there")
    other.head, other.b = nn.Linear(64, 10), nn.Linear(64, 64)
    assert_refused(other, path, "tensor 'b.bias' is missing, which the model has")
    assert_refused(net().half(), path, "torch.float32 .* in the file, but torch.float16")
    other = net()
    other.many = nn.Sequential(*[nn.Linear(2, 2) for _ in range(9)])
    assert_refused(other, path, "tensor 'many.0.weight' is missing(.|\n)*and 13 more like these$")


# --- saving ---


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["save_file", "os.fsync", "os.replace"])
def test_an_interrupted_save_leaves_the_old_file(path, monkeypatch, step, failure):
    from minifloat.checkpoint import file

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
    from minifloat.formats import names

    mf.Format.codebook("checkpoint_twice", [1.0, 2.0])
    model = mf.quantize_(net(), "checkpoint_twice-row", select="a")
    monkeypatch.delitem(names._codebooks, "checkpoint_twice")
    mf.Format.codebook("checkpoint_twice", [1.0, 3.0])
    mf.quantize_(model, "checkpoint_twice-row", select="b")
    with pytest.raises(ValueError, match="codebook 'checkpoint_twice' already means other values"):
        mf.save(model, tmp_path / "m")
    assert os.listdir(tmp_path) == []
