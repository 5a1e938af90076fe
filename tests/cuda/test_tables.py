"""Weights of one bit by tables of sums of x: linear_tables, on the CPU, keeps the float contract's bound."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import minifloat as mf
from checks import any_codes, assert_within_float_bound
from minifloat.nn import qlinear

WEIGHTS = ("binary-row", "binary-g64", "binary-g128-bf16", "int1-row", "uint1-g256", "int1-tensor", "binary-row-e8m0")
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def check(shim, q, x, bias, prefer="tables", want="tables"):
    y, route, math = shim.linear(x, *shim.prepare(q, None), bias, prefer=prefer)
    assert route == want and (want != "tables" or math == "float32")
    assert_within_float_bound(y, q, x, bias)
    return y


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_within_the_bound(any_order, make, weight, dtype):
    """One panel, an odd number of panels, outputs that do not fill one; more chunks than warps."""
    for n, k in ((16, 256), (40, 512), (3, 9 * 256)):
        bias = make(weight, None, 1, n, k, 0)[2]
        check(any_order, any_codes(mf.QuantSpec.parse(weight), (n, k)), torch.randn(1, k).to(dtype), bias)


@pytest.mark.parametrize("k", [1, 31, 97, 257, 1031])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_odd_k(shim, make, k, dtype):
    for weight in ("binary-row", "int1-row"):
        q, _, bias, _ = make(weight, None, 1, 19, k, 0)
        check(shim, q, torch.randn(1, k).to(dtype), bias)


@pytest.mark.parametrize(
    ("weight", "k"), [("binary-g96", 480), ("int1-g40", 200), ("binary-g160", 800), ("uint1-g512", 1536)]
)
def test_group_sizes(shim, make, weight, k):
    """Folds of 64, 128 and whole chunks, padded and not; an odd number of them."""
    q, _, bias, _ = make(weight, None, 1, 17, k, 1)
    check(shim, q, torch.randn(1, k), bias)


def test_every_k_of_a_chunk_has_its_place(shim):
    """One at a time: each k and each output has a weight of its own."""
    torch.manual_seed(0)
    q = any_codes(mf.QuantSpec.parse("uint1-tensor"), (32, 256))
    w = q.dequantize()
    for first in range(0, 256, 8):
        x = torch.zeros(8, 256)
        x[range(8), range(first, first + 8)] = 3.0
        assert torch.equal(check(shim, q, x, None), 3 * w[:, first : first + 8].T)


def test_planes_stacked_along_the_outputs(shim):
    """Binary-coded weights: w = sum of scale times sign, a plane each. One product of all planes, then their sum."""
    torch.manual_seed(0)
    n, k = 24, 512
    rest, planes = torch.randn(n, k), []
    for _ in range(3):
        planes.append(mf.quantize(rest, "binary-row"))
        rest = rest - planes[-1].dequantize()
    stacked = mf.QTensor(
        planes[0].spec,
        (3 * n, k),
        torch.cat([q.packed for q in planes]),
        torch.cat([q.scale_data for q in planes]),
    )
    x = torch.randn(1, k)
    y = check(shim, stacked, x, None).double().reshape(3, n).sum(0)
    want = x.double().numpy() @ sum(mf.emulator.dequantize(q) for q in planes).T
    bound = sum(mf.emulator.float_bound(x, q, None) for q in planes)
    assert (np.abs(y.numpy() - want) <= bound).all()


@pytest.mark.parametrize(("planes", "group"), [(1, 64), (3, 128), (2, None)])
def test_a_binary_coded_layer(shim, monkeypatch, planes, group):
    """The layer's own call, with these kernels in place of the op: by tables, whatever the number of planes."""
    torch.manual_seed(0)
    layer = mf.nn.BinaryCodedLinear.from_float(torch.nn.Linear(256, 40), planes, group)
    routes = []

    def linear(x, layout, plan, bias, outputs):
        y, route, _ = shim.linear(x, shim.prepare(layer.qtensor, None)[0], plan, bias)
        routes.append(route)
        return y

    monkeypatch.setattr(qlinear, "_C", SimpleNamespace(linear=linear))
    x = torch.randn(1, 256)
    with torch.no_grad():
        y = layer(x)
    assert routes == ["tables"]
    assert_within_float_bound(y, layer.qtensor, x.repeat(1, planes), layer.bias.detach())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_a_codebook_of_two_values(shim, dtype):
    """Values that no 16-bit float holds: the tables are of float32."""
    f = mf.Format.codebook("two", np.float32([-0.3, 1.1]))
    q = mf.quantize(torch.randn(20, 300), mf.QuantSpec(f, "row"))
    check(shim, q, torch.randn(1, 300).to(dtype), None)


def test_cancelling_weights_leave_no_residue(shim):
    """Tables of 0 and 1 times x, corrected afterwards, would miss the bound here."""
    f = mf.Format.codebook("zero_or_five", np.array([0.0, 5.0]))
    q = mf.quantize(torch.zeros(16, 256), mf.QuantSpec(f, "row"))
    assert (check(shim, q, torch.full((1, 256), 3e4), None) == 0).all()


def test_nan_stays_in_its_row(shim, make):
    q = make("binary-g64", None, 1, 8, 256, 0)[0]
    x = torch.randn(3, 256)
    x[1, 5] = float("nan")
    y, route, _ = shim.linear(x, *shim.prepare(q, None), prefer="tables")
    assert route == "tables" and y[1].isnan().all() and y[[0, 2]].isfinite().all()


@pytest.mark.parametrize(
    ("weight", "dtype", "m", "prefer", "want"),
    [
        ("binary-row", torch.float16, 1, "", "narrow"),
        ("binary-g64", torch.bfloat16, 1, "", "narrow"),
        ("binary-row", torch.float32, 1, "", "tables"),
        ("int1-row", torch.float32, 1, "", "tables"),
        ("int1-row", torch.float16, 1, "", "narrow"),
        ("int1-row", torch.float16, 1, "tables", "tables"),
        ("binary-row", torch.float16, 2, "", "narrow"),
        ("binary-row", torch.float32, 2, "", "lanes"),
        ("binary-row", torch.float16, 8, "tables", "tables"),
        ("binary-row", torch.float16, 9, "tables", "narrow"),
        ("binary-row", torch.float16, 1, "usual", "narrow"),
        ("binary-g32", torch.float32, 1, "tables", "lanes"),  # two folds in a table
        ("uint1-row-zp", torch.float32, 1, "tables", "lanes"),
        ("int2-row", torch.float32, 1, "tables", "lanes"),
    ],
)
def test_when_it_is_chosen(shim, make, weight, dtype, m, prefer, want):
    q, _, bias, _ = make(weight, None, m, 19, 256, 1)
    check(shim, q, torch.randn(m, 256).to(dtype), bias, prefer, want)


def test_rows_do_not_depend_on_their_batch(shim, make):
    q, _, bias, _ = make("binary-g128", None, 1, 50, 512, 5)
    x = torch.randn(5, 512)
    whole = check(shim, q, x, bias)
    for m in range(5):
        assert torch.equal(check(shim, q, x[m : m + 1], bias)[0], whole[m])
