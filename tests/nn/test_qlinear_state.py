"""What QLinear stores and how it travels: state dicts, copies, pickles, dtypes, devices."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.nn import QLinear

SPECS = ["e2m1-g32-e8m0", "uint4-g32-bf16-zp", "nvfp4", "int3-g32", "nf4-g64", "e4m3fn-tensor", "binary-row"]
X = torch.linspace(-2, 2, 3 * 64).reshape(3, 64)


def make(weight="e2m1-g32-e8m0", activation="int8-row", bias=True, seed=0, n=12):
    torch.manual_seed(seed)
    return QLinear.from_float(nn.Linear(64, n, bias=bias), weight, activation)


def snapshot(layer):
    return layer(X).clone(), {name: tensor.clone() for name, tensor in layer.state_dict().items()}


def same(layer, snap):
    y, state = snap
    now = layer.state_dict()
    return torch.equal(layer(X), y) and now.keys() == state.keys() and all(torch.equal(now[k], state[k]) for k in now)


@pytest.mark.parametrize("spec", SPECS)
def test_state_dict_is_canonical(spec):
    torch.manual_seed(0)
    linear = nn.Linear(64, 12)
    q = mf.quantize(linear.weight.detach(), spec)
    state = QLinear.from_float(linear, spec, "int8-row").state_dict()
    expected = {"weight_packed": q.packed, "weight_scales": q.scale_data, "bias": linear.bias.detach()}
    if q.zero_points is not None:
        expected["weight_zero_points"] = q.zero_points
    if q.tensor_scale is not None:
        expected["weight_tensor_scale"] = q.tensor_scale
    assert state.keys() == expected.keys()
    for name, tensor in expected.items():
        assert state[name].dtype == tensor.dtype and torch.equal(state[name], tensor), name


@pytest.mark.parametrize("spec", SPECS)
def test_state_dict_round_trip(spec):
    source, target = make(spec), make(spec, seed=1)
    assert not same(target, snapshot(source))
    file = io.BytesIO()
    torch.save(source.state_dict(), file)
    file.seek(0)
    result = target.load_state_dict(torch.load(file, weights_only=True))
    assert same(target, snapshot(source)) and not result.missing_keys and not result.unexpected_keys


@pytest.mark.parametrize("assign", [False, True])
def test_state_dict_round_trip_inside_a_model(assign):
    models = [nn.Sequential(make(seed=seed), nn.ReLU(), nn.Linear(12, 2)) for seed in (0, 1)]
    models[1].load_state_dict(models[0].state_dict(), assign=assign)
    assert torch.equal(models[0](X), models[1](X))
    assert list(models[0].state_dict()) == ["0.weight_packed", "0.weight_scales", "0.bias", "2.weight", "2.bias"]


def edit(**changes):
    """A change to a state dict: None removes a key, a function maps its tensor, a tensor replaces it."""

    def apply(state):
        for name, change in changes.items():
            if change is None:
                del state[name]
            else:
                state[name] = change(state[name]) if callable(change) else change
        return state

    return apply


BAD_STATES = [
    (edit(weight_packed=None), 'Missing key.*"fc.weight_packed"'),
    (edit(weight_scales=None), 'Missing key.*"fc.weight_scales"'),
    (edit(bias=None), 'Missing key.*"fc.bias"'),
    (edit(weight_packed=lambda t: t[:, :-1].contiguous()), r"fc.weight, e2m1-g32-e8m0 of shape \(12, 64\): .*12, 31"),
    (edit(weight_packed=lambda t: t[:-1]), r"fc.weight, e2m1-g32-e8m0 of shape \(12, 64\): .*11, 32"),
    (edit(weight_packed=lambda t: t.float()), r"fc.weight, e2m1-g32-e8m0.*float32"),
    (edit(weight_packed="text"), "fc.weight_packed is a str, expected a tensor"),
    (edit(weight_scales=lambda t: t[:, :1]), r"fc.weight, e2m1-g32-e8m0.*scale.*12, 1"),
    (edit(weight_scales=lambda t: t.float()), r"fc.weight, e2m1-g32-e8m0.*scale.*float32"),
    (edit(weight_zero_points=torch.zeros(12, 2, dtype=torch.uint8)), "fc.weight_zero_points does not belong to e2m1"),
    (edit(weight_tensor_scale=torch.tensor(1.0)), "fc.weight_tensor_scale does not belong to e2m1"),
    (edit(weight=torch.zeros(12, 64)), "fc.weight is a float weight, but the layer is quantized to e2m1-g32-e8m0"),
    (edit(bias=lambda t: t[:-1]), r"fc.bias is of shape \(11,\), but the layer takes a tensor of shape \(12,\)"),
    (edit(bias=3), "fc.bias is int, but the layer takes a tensor"),
]


@pytest.mark.parametrize(("change", "text"), BAD_STATES)
def test_a_bad_state_dict_is_named_and_changes_nothing(change, text):
    source, target = make(), make(seed=1)
    before = snapshot(target)
    state = {f"fc.{name}": tensor for name, tensor in change(dict(source.state_dict())).items()}
    with pytest.raises(RuntimeError, match=text):
        nn.ModuleDict({"fc": target}).load_state_dict(state)
    assert same(target, before)


@pytest.mark.parametrize("key", ["weight_gone", "sub.weight"])
def test_unexpected_keys_are_named(key):
    with pytest.raises(RuntimeError, match=f'Unexpected key.*"{key}"'):
        make().load_state_dict(make().state_dict() | {key: torch.zeros(1)})
    with pytest.raises(RuntimeError, match='Unexpected key.*"bias"'):
        make(bias=False).load_state_dict(make().state_dict())


def test_codes_out_of_range_are_refused():
    mf.Format.codebook("qlinear_three", [-1.0, 0.0, 1.0])  # 2 bits, and code 3 means nothing
    source, target = make("qlinear_three-row"), make("qlinear_three-row", seed=1)
    before, state = snapshot(target), source.state_dict()
    state["weight_packed"] = state["weight_packed"].clone()
    state["weight_packed"][3, 0] = 0xFF
    with pytest.raises(RuntimeError, match=r"weight, qlinear_three-row of shape \(12, 64\): .*code 3"):
        target.load_state_dict(state)
    assert same(target, before)


def test_another_spec_of_the_same_sizes_is_refused():
    target = make("e2m1-g32")
    before = snapshot(target)
    with pytest.raises(RuntimeError, match="weight is stored as int4-g32, but the layer is quantized to e2m1-g32"):
        target.load_state_dict(make("int4-g32", seed=1).state_dict())
    assert same(target, before)


def test_not_strict_skips_an_incomplete_layer_whole():
    source, target = make(), make(seed=1)
    before, state = snapshot(target), source.state_dict()
    del state["weight_scales"]
    assert target.load_state_dict(state, strict=False).missing_keys == ["weight_scales"]
    assert same(target, before)


def test_a_float_layer_refuses_a_quantized_state_dict():
    with pytest.raises(RuntimeError, match="weight_packed"):
        nn.Linear(64, 12).load_state_dict(make().state_dict())


@pytest.mark.parametrize(
    "convert",
    [
        lambda layer: layer.half(),
        lambda layer: layer.bfloat16(),
        lambda layer: layer.to(torch.float16),
        lambda layer: layer.to("cpu", torch.bfloat16),
        lambda layer: layer.type(torch.float16),
        lambda layer: layer.double().float(),
    ],
)
@pytest.mark.parametrize("spec", ["int4-g32", "uint4-g32-bf16-zp", "nvfp4"])
def test_dtype_conversions_reach_the_bias_only(spec, convert):
    layer = make(spec)
    state = layer.state_dict()
    converted = convert(layer)
    assert converted is layer and layer.layout.dtype == torch.uint8 and layer.plan.dtype == torch.uint8
    now = layer.state_dict()
    assert all(
        now[name].dtype == state[name].dtype and torch.equal(now[name], state[name]) for name in now if name != "bias"
    )
    assert now["bias"].dtype == layer.bias.dtype == convert(nn.Linear(1, 1)).bias.dtype
    x = X.to(layer.bias.dtype)
    assert layer(x).dtype == x.dtype


def test_the_plan_stays_on_the_cpu():
    layer = make().to("meta")
    assert layer.layout.is_meta and layer.bias.is_meta and layer.plan.device.type == "cpu"
    with pytest.raises(ValueError, match="meta device and has no values"):
        layer.state_dict()


def test_values_can_be_loaded_into_a_meta_layer():
    source, target = make(), make(seed=1).to("meta")
    target.load_state_dict(source.state_dict(), assign=True)
    assert same(target, snapshot(source))


@pytest.mark.parametrize("travel", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
@pytest.mark.parametrize("spec", SPECS)
def test_copies_are_equal_and_independent(spec, travel):
    layer = make(spec).eval()
    before = snapshot(layer)
    twin = travel(layer)
    assert same(twin, before) and not twin.training and repr(twin) == repr(layer)
    twin.load_state_dict(make(spec, seed=1).state_dict())
    assert same(layer, before) and not same(twin, before)


def test_a_pickle_holds_canonical_tensors_not_the_layout():
    layer = make("int8-row", n=64)
    plain = len(pickle.dumps(layer.qtensor))
    assert len(pickle.dumps(layer)) < plain + 6000
    names = {name for name, _ in pickle.loads(pickle.dumps(layer)).named_buffers()}
    assert names == {"layout"}
    assert "layout" in layer._buffers and layer.plan is not None  # the pickled one is as it was


def test_torch_save_of_a_whole_module():
    layer, file = make(), io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    assert same(torch.load(file, weights_only=False), snapshot(layer))


def tied_pair():
    model = nn.ModuleDict({"a": nn.Linear(64, 12), "b": nn.Linear(64, 12)})
    model["b"].weight = model["a"].weight
    return mf.quantize_(model, "int4-g32", "int8-row")


@pytest.mark.parametrize(
    "travel",
    [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), lambda m: m.half(), lambda m: m.to("cpu"), lambda m: m],
)
def test_tied_layers_stay_tied(travel):
    model = travel(tied_pair())
    assert model["a"].layout is model["b"].layout and model["a"].prepared is model["b"].prepared
    other = tied_pair()
    model["a"].load_state_dict(other["a"].state_dict())
    assert torch.equal(model["b"].weight, other["b"].weight)


def test_tied_layers_stay_tied_on_the_meta_device():
    model = tied_pair().to("meta")
    assert model["a"].layout is model["b"].layout
    source = tied_pair()
    model.load_state_dict(source.state_dict(), assign=True)
    assert model["a"].layout is model["b"].layout and torch.equal(model["b"](X), source["b"](X))
