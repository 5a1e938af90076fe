"""quantize_: which layers change and how, what stays tied, what is refused, and that a failure changes nothing."""

import copy
import warnings

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import minifloat as mf
from minifloat.nn import QLinear


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.up = nn.Linear(64, 96)
        self.down = nn.Linear(96, 64, bias=False)

    def forward(self, x):
        return x + self.down(self.up(x).relu())


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 10)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.head(self.norm(x))


NAMES = ["layers.0.up", "layers.0.down", "layers.1.up", "layers.1.down", "head"]
X = torch.linspace(-1, 1, 5 * 64).reshape(5, 64)


def net():
    torch.manual_seed(0)
    return Net().eval()


def specs(model):
    found = {name: module for name, module in model.named_modules() if isinstance(module, QLinear)}
    return {name: (str(layer.spec), layer.activation and str(layer.activation)) for name, layer in found.items()}


def fingerprint(model):
    """Every module and tensor of the model by identity and value."""
    modules = [(name, id(module), type(module)) for name, module in model.named_modules(remove_duplicate=False)]
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return modules, {name: (id(t), t.sum().item() if not t.is_meta else None) for name, t in tensors.items()}


def assert_fails(model, text, *args, **kwargs):
    """quantize_ raises ValueError with this text and leaves the model as it was."""
    before = fingerprint(model)
    with warnings.catch_warnings(), pytest.raises(ValueError, match=text):
        warnings.simplefilter("ignore")
        mf.quantize_(model, *args, **kwargs)
    after = fingerprint(model)
    assert str(after) == str(before)


# --- which layers, and how ---


def test_every_linear_by_default():
    model, original = net(), net()
    assert mf.quantize_(model, "int8-row", "int8-row") is model
    assert specs(model) == {name: ("int8-row", "int8-row") for name in NAMES}
    assert (model(X) - original(X)).abs().max() < 0.05 * original(X).abs().max()
    for name in NAMES:  # each has its own weight
        expected = QLinear.from_float(original.get_submodule(name), "int8-row", "int8-row")
        assert torch.equal(model.get_submodule(name).weight, expected.weight)
        assert not model.get_submodule(name).training


@pytest.mark.parametrize(
    ("select", "chosen"),
    [
        ("head", ["head"]),
        ("layers.*", NAMES[:4]),
        ("*.up", ["layers.0.up", "layers.2.up".replace("2", "1")]),
        (["layers.0.*", "head"], ["layers.0.up", "layers.0.down", "head"]),
        ("layers.[1].d?wn", ["layers.1.down"]),
        (lambda name, module: module.bias is None, ["layers.0.down", "layers.1.down"]),
    ],
)
def test_select(select, chosen):
    model = mf.quantize_(net(), "int4-g32", select=select)
    assert list(specs(model)) == chosen
    model(X)


def test_overrides_refine_and_later_ones_win():
    model = mf.quantize_(
        net(),
        "int4-g32",
        "int8-row",
        overrides={
            "layers.*": {"weight": "int6-row"},
            "layers.1.*": {"activation": None},
            "layers.1.up": {"weight": "mxfp4", "activation": "mxfp8-e4m3"},
            "head": None,
        },
    )
    assert specs(model) == {
        "layers.0.up": ("int6-row", "int8-row"),
        "layers.0.down": ("int6-row", "int8-row"),
        "layers.1.up": ("e2m1-g32-e8m0", "e4m3fn-g32-e8m0"),
        "layers.1.down": ("int6-row", None),
    }
    assert type(model.head) is nn.Linear


def test_an_override_can_bring_back_what_an_earlier_one_left_out():
    overrides = {"layers.*": None, "*.up": {"activation": "int8-row"}}
    model = mf.quantize_(net(), "int4-g32", overrides=overrides)
    assert specs(model) == {
        "layers.0.up": ("int4-g32", "int8-row"),
        "layers.1.up": ("int4-g32", "int8-row"),
        "head": ("int4-g32", None),
    }


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"select": "haed"}, "select='haed' matches no Linear layer; patterns are globs over names such as 'head'"),
        ({"select": ["head", "layers.7.*"]}, "select='layers.7.\\*' matches no Linear layer"),
        ({"select": "norm"}, "select='norm' matches no Linear layer"),
        ({"select": []}, "select is an empty list"),
        ({"select": lambda name, module: False}, "select chose none of the 5 Linear layers"),
        ({"overrides": {"haed": None}}, "the override 'haed' matches no Linear layer; .*'head'"),
        (
            {"select": "layers.*", "overrides": {"head": None}},
            "override 'head' matches no Linear layer that select chose",
        ),
        ({"overrides": {"head": "int8-row"}}, "the override of 'head' is 'int8-row'; expected None .* or a dictionary"),
        ({"overrides": {"head": {"wieght": "int8-row"}}}, "the override of 'head' is .*wieght.*'weight', 'activation'"),
        ({"overrides": {"head": {}}}, "the override of 'head' is {}"),
        ({"overrides": {"head": {"weight": None}}}, "the override of 'head' has no weight; use None alone"),
        ({"overrides": {"head": {"weight": "int4"}}}, "does not say where scales live"),
        ({"activation": "int8-row-mse"}, "activation int8-row-mse: x is scaled by absmax at run time; drop '-mse'"),
        ({"overrides": {"head": {"activation": "int8-row-mse"}}}, "drop '-mse'"),
        ({"activation": "e4m3-row"}, "'e4m3' .*did you mean"),
    ],
)
def test_refuses_what_it_cannot_follow(kwargs, text):
    assert_fails(net(), text, "int8-row", **kwargs)


# --- layers that cannot be quantized as asked ---


def test_a_k_that_does_not_fit_is_named_before_anything_changes():
    text = (
        r"nothing was changed, because 'layers.0.up' has K=64, which is not a multiple of the group size 48 of the "
        r"weight int4-g48: use a group size that divides 64, such as 32, or '-row', or leave it out with "
        r"overrides={'layers.0.up': None}\n.*'layers.1.up' has K=64.*\n.*'head' has K=64"
    )
    assert_fails(net(), text, "int4-g48")
    assert_fails(
        net(),
        "'head' has K=64, .* group size 128 of the activation int8-g128: .* such as 64,",
        "int4-row",
        overrides={"head": {"activation": "int8-g128"}},
    )


def test_many_problems_are_summed_up():
    model = nn.Sequential(*[nn.Linear(50, 50) for _ in range(9)])
    assert_fails(model, "'4' has K=50(.|\n)*and 4 more like these$", "int4-g32")


@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_a_weight_that_is_no_number_is_named_and_nothing_changes(value):
    model = net()
    with torch.no_grad():
        model.head.weight[3, 7] = value
    assert_fails(model, f"nothing was changed, because of 'head': .*{value}.*3, 7", "int8-row")


def test_a_quantized_layer_is_not_quantized_twice():
    model = mf.quantize_(net(), "int8-row", select="head")
    assert_fails(model, "'head' is already quantized to int8-row: .* overrides={'head': None}", "int4-row")
    mf.quantize_(model, "int4-row", overrides={"head": None})
    assert specs(model) == {name: ("int8-row" if name == "head" else "int4-row", None) for name in NAMES}


def test_layers_without_values_are_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(32, 32))
    assert_fails(model, "'0' has no values yet .*meta device", "int8-row")
    lazy = nn.Sequential(nn.LazyLinear(4))
    with pytest.raises(ValueError, match="'0' has no values yet"):
        mf.quantize_(lazy, "int8-row")
    assert type(lazy[0]) is nn.LazyLinear


def test_float64_is_refused():
    assert_fails(nn.Sequential(nn.Linear(32, 8)).double(), "'0' has a weight of torch.float64: convert it", "int8-row")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_models(dtype):
    model = mf.quantize_(net().to(dtype), "int8-row")
    assert model.head.bias.dtype == dtype
    y = model.head(X.to(dtype))
    assert y.dtype == dtype and y.isfinite().all()


def test_a_model_that_is_a_linear_itself():
    with pytest.raises(ValueError, match="a Linear cannot replace itself: use mf.nn.QLinear.from_float"):
        mf.quantize_(nn.Linear(32, 8), "int8-row")
    with pytest.raises(ValueError, match="a QLinear cannot replace itself"):
        mf.quantize_(QLinear.from_float(nn.Linear(32, 8), "int8-row"), "int8-row")
    with pytest.raises(ValueError, match="ReLU has no nn.Linear"):
        mf.quantize_(nn.ReLU(), "int8-row")


def test_empty_layers():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Initializing zero-element")
        model = nn.Sequential(nn.Linear(64, 0), nn.Linear(0, 4))
    mf.quantize_(model, "int4-g32")
    assert model[0](X).shape == (5, 0)
    assert torch.equal(model[1](torch.zeros(2, 0)), model[1].bias.expand(2, 4))


# --- ties and shared modules ---


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


class Scaled(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


class Plain(nn.Linear):
    pass


def test_subclasses_with_a_forward_of_their_own_stay_float():
    model = nn.Sequential(Scaled(64, 64), Plain(64, 64))
    with pytest.warns(UserWarning, match="'0': its class Scaled has a forward of its own"):
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


# --- the report ---


def test_report_covers_every_linear():
    report = []
    mf.quantize_(net(), "mxfp4", "int8-row", select="layers.*", overrides={"layers.1.*": None}, report=report)
    assert [r.name for r in report] == NAMES
    assert [r.reason for r in report] == ["", "", *["left out by an override"] * 2, "not selected"]
    assert str(report[0]) == "layers.0.up (96, 64): e2m1-g32-e8m0 x int8-row, 4.25 bits"
    assert str(report[4]) == "head (10, 64): float, 32 bits (not selected)"
    assert (report[0].shape, report[0].bits_per_value, report[0].quantized) == ((96, 64), 4.25, True)


def test_a_failed_call_reports_nothing():
    report = []
    assert_fails(net(), "K=64", "int4-g48", report=report)
    assert report == []


def test_no_warning_without_a_reason():
    mf.quantize_(net(), "int8-row", select="head")  # warnings are errors here
