"""quantize_: tied weights, shared modules, and layers that somebody else reads, computes or wraps."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import minifloat as mf
from minifloat.nn import QLinear
from nn.nets import X, assert_fails, fingerprint, net, specs


class Language(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(40, 64)
        self.body = nn.Linear(64, 64)
        self.head = nn.Linear(64, 40, bias=False)
        self.head.weight = self.embed.weight


def test_a_layer_tied_to_an_embedding_stays_float():
    model, report = Language(), []
    with pytest.warns(UserWarning, match="left in float: 'head': its weight is tied to 'embed.weight', which stays"):
        mf.quantize_(model, "int8-row", report=report)
    assert list(specs(model)) == ["body"] and model.head.weight is model.embed.weight
    assert [(r.name, r.quantized, r.reason) for r in report] == [
        ("body", True, ""),
        ("head", False, "its weight is tied to 'embed.weight', which stays float"),
    ]


@pytest.mark.parametrize(
    "kwargs",
    [{"overrides": {"head": {"weight": "int8-row"}}}, {"select": ["*", "head"]}, {"select": ["body", "head"]}],
)
def test_naming_a_tied_layer_in_full_unties_it(kwargs):
    model = Language()
    before = model.embed.weight.clone()
    mf.quantize_(model, "int8-row", **kwargs)
    assert list(specs(model)) == ["body", "head"] and torch.equal(model.embed.weight, before)


def test_two_layers_untied_from_an_embedding_stay_tied_to_each_other():
    model = Language()
    model.other = nn.Linear(64, 40)
    model.other.weight = model.embed.weight
    text = "'head' and 'other' share one weight, but would be quantized as int8-row x None and int4-row x None"
    assert_fails(model, text, "int8-row", select=["head", "other"], overrides={"other": {"weight": "int4-row"}})
    mf.quantize_(model, "int8-row", select=["head", "other"])
    assert model.head.layout is model.other.layout


def test_leaving_a_tied_layer_out_is_silent():
    mf.quantize_(Language(), "int8-row", overrides={"head": None})
    mf.quantize_(Language(), "int8-row", select="body")


def tied(extra=None):
    model = nn.ModuleDict({"a": nn.Linear(64, 32), "b": nn.Linear(64, 32), **(extra or {})})
    model["b"].weight = model["a"].weight
    return model


def test_tied_linears_stay_tied():
    model = mf.quantize_(tied(), "int4-g32", "int8-row")
    assert model["a"].layout is model["b"].layout and model["a"].bias is not model["b"].bias
    assert len({t.data_ptr() for t in model.buffers()}) == 1


def test_tied_linears_must_agree():
    text = "'a' and 'b' share one weight, but would be quantized as int8-row x None and int4-row x None"
    assert_fails(tied(), text, "int8-row", overrides={"b": {"weight": "int4-row"}})
    assert_fails(
        tied(), "int8-row x None and int8-row x int8-row", "int8-row", overrides={"b": {"activation": "int8-row"}}
    )


def test_a_shared_bias_is_no_tie():
    model = tied({"norm": nn.LayerNorm(32), "c": nn.Linear(64, 32)})
    model["a"].bias = model["c"].bias = model["norm"].bias
    mf.quantize_(model, "int8-row", overrides={"c": {"weight": "int4-row"}})
    assert list(specs(model)) == ["a", "b", "c"]
    assert model["a"].bias is model["c"].bias is model["norm"].bias


def test_where_warnings_are_errors_nothing_changes():
    model, report = Language(), []
    before = fingerprint(model)
    with warnings.catch_warnings(), pytest.raises(UserWarning, match="left in float: 'head'"):
        warnings.simplefilter("error")
        mf.quantize_(model, "int8-row", report=report)
    assert fingerprint(model) == before and report == []


@pytest.mark.parametrize("kwargs", [{"select": "[ac]"}, {"overrides": {"b": None}}])
def test_half_of_a_tie_stays_float(kwargs):
    model = tied({"c": nn.Linear(64, 2)})
    with pytest.warns(UserWarning, match="'a': its weight is tied to 'b.weight', which stays float"):
        mf.quantize_(model, "int8-row", **kwargs)
    assert list(specs(model)) == ["c"] and model["a"].weight is model["b"].weight


def test_a_module_used_twice_becomes_one():
    linear = nn.Linear(64, 64)
    model = nn.ModuleDict({"a": linear, "b": linear, "c": nn.Sequential(linear)})
    report = []
    mf.quantize_(model, "int8-row", select="c.0", report=report)
    assert isinstance(model["a"], QLinear) and model["a"] is model["b"] is model["c"][0]
    assert [r.name for r in report] == ["a"]


# --- layers that somebody else reads or computes ---


def test_attention_out_proj_stays_float():
    model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval()
    original = copy.deepcopy(model)
    with pytest.warns(UserWarning, match="'self_attn.out_proj': nn.MultiheadAttention multiplies with its weight"):
        mf.quantize_(model, "int8-row")
    assert list(specs(model)) == ["linear1", "linear2"]
    x = torch.randn(2, 7, 64)
    assert (model(x) - original(x)).abs().max() < 0.1
    with pytest.raises(ValueError, match="'self_attn.out_proj' cannot be quantized: nn.MultiheadAttention"):
        mf.quantize_(original, "int8-row", select="self_attn.out_proj")


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True)
    return nn.TransformerEncoder(layer, 2).eval()


@pytest.mark.filterwarnings("ignore:quantize_. left in float", "ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("through_a_file", [False, True])
def test_the_encoders_fused_path_is_off(padded, through_a_file, tmp_path):
    """It would read linear1.weight and multiply in float, without activation quantization and without the kernels."""
    model = mf.quantize_(encoder(), "int8-row", "int2-row", select="*.linear?")
    if through_a_file:
        mf.save(model, tmp_path / "m")
        model = mf.load(encoder(), tmp_path / "m")
    x, calls = torch.randn(2, 7, 64), []
    mask = (torch.arange(7) >= torch.tensor([[7], [4]])) if padded else None
    expected = model(x, src_key_padding_mask=mask)  # with gradients torch never takes that path
    for layer in model.layers:
        forward = layer.linear1.forward
        layer.linear1.forward = lambda x, forward=forward: calls.append(1) or forward(x)
    with torch.inference_mode():
        found = model(x, src_key_padding_mask=mask)
    assert len(calls) == 2
    real = ~mask if padded else slice(None)
    torch.testing.assert_close(found[real], expected.detach()[real])


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Plain(nn.Linear):
    pass


def test_subclasses_with_a_forward_of_their_own_stay_float():
    model = nn.Sequential(Scaled(64, 64), Plain(64, 64))
    with pytest.warns(UserWarning, match="'0': it has a forward of its own .Scaled."):
        mf.quantize_(model, "int8-row")
    assert list(specs(model)) == ["1"]


def test_a_layer_with_a_wrapped_forward_stays_float():
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    forward = model[0].forward
    model[0].forward = lambda x: forward(x) + 1  # as libraries do that move weights between devices
    with pytest.warns(UserWarning, match="'0': it has a forward of its own"):
        mf.quantize_(model, "int8-row")
    assert list(specs(model)) == ["1"]


@pytest.mark.parametrize(
    "change",
    [
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.orthogonal,
        lambda layer: prune.l1_unstructured(layer, "weight", amount=0.5),
    ],
)
def test_computed_weights_stay_float(change):
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    change(model[0])
    x = torch.randn(2, 32)
    with pytest.warns(UserWarning, match="'0': its weight is computed by a parametrization, weight norm or pruning"):
        mf.quantize_(model, "int8-row")
    assert list(specs(model)) == ["1"] and model(x).shape == (2, 32)


def test_hooks_move_to_the_new_layer():
    model, seen = net(), []
    handle = model.head.register_forward_hook(lambda module, args, y: seen.append((type(module), tuple(y.shape))))
    model.head.register_forward_pre_hook(lambda module, args, kwargs: seen.append("pre"), with_kwargs=True)
    mf.quantize_(model, "int8-row")
    model(X)
    assert seen == ["pre", (QLinear, (5, 10))]
    handle.remove()
    model(X)
    assert seen == ["pre", (QLinear, (5, 10)), "pre"]
