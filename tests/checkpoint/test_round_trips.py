"""mf.load(mf.save(model)): every kind of model comes back as it was, ties included."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import minifloat as mf
from checkpoint.nets import Net, X, assert_holds, assert_refused, net, quantized
from minifloat.nn import QLinear


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


@pytest.mark.parametrize("quantized_before", [False, True])
def test_a_bias_that_only_the_file_has(tmp_path, quantized_before):
    """bias_correction gives layers a bias that had none; the float model they came from has none."""
    float_model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 8, bias=False))
    x = torch.randn(8, 16)
    saved = mf.calibrate(float_model, [x], "bias_correction", weight="int4-row", activation="int4-row")
    assert saved[0].bias is not None
    mf.save(saved, tmp_path / "m")
    model = mf.quantize_(float_model, "int4-row", "int4-row") if quantized_before else float_model
    mf.load(model, tmp_path / "m")
    assert torch.equal(model(x), saved(x)) and model[2].bias.requires_grad
    assert [name for name, _ in model.named_parameters()] == ["0.bias", "2.bias"]


def test_a_bias_that_does_not_fit_a_layer_without(tmp_path):
    saved = mf.quantize_(nn.Sequential(nn.Linear(16, 8)), "int4-row")
    saved[0].bias = nn.Parameter(torch.zeros(4))
    mf.save(saved, tmp_path / "m")
    model = nn.Sequential(nn.Linear(16, 8, bias=False))
    assert_refused(model, tmp_path / "m", r"'0.bias' is torch.float32 \(4,\), not \(8,\) floats")
