"""The op on a GPU: what only a GPU can show, beside the routes of test_routes.py. `make gpu` runs these."""

import pytest
import torch

import minifloat as mf
from checks import assert_within_float_bound
from gpu_cases import FLOAT, IN_FLOAT32, Case, check, check_float8, make, on_gpu
from minifloat.nn.prepared import on_device
from minifloat.ops import cuda

pytestmark = pytest.mark.skipif(
    not cuda.state().startswith("available"), reason=f"the CUDA backend did not run: {cuda.state()}"
)


def case(weight, activation, m, n, k, dtype=torch.float32):
    return make(Case(weight, activation, m, n, k, dtype))


@pytest.mark.parametrize("weight", ["e2m1-g32", "nf4-g64", "uint4-g32-zp", "e5m2-row"])
def test_float8_activations(weight):
    """Those that are widened first, and those that a GPU of sm_90 takes as they are."""
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        for m in (3, 70):
            check_float8(*case(weight, None, m, 17, 256, dtype)[:3])


def test_rows_do_not_depend_on_their_batch():
    q, x, bias, activation = case("e2m3-g32-e8m0", "int8-row", 130, 50, 512)
    whole = on_gpu(q, x, bias, activation)
    for m in range(0, 130, 9):
        assert torch.equal(on_gpu(q, x[m : m + 1], bias, activation)[0], whole[m])


def test_layers_move_and_come_back():
    for activation in (None, "int8-row"):
        linear = torch.nn.Linear(256, 48)
        layer = mf.nn.QLinear.from_float(linear, weight="e2m1-g32-e8m0", activation=activation)
        x = torch.randn(5, 256)
        before = layer(x)
        moved = layer.to("cuda")(x.cuda()).cpu()
        assert torch.equal(moved, before) if activation else torch.allclose(moved, before, atol=1e-3)
        assert torch.equal(layer.to("cpu")(x), before)


@pytest.mark.parametrize("planes", [1, 3])
def test_a_binary_coded_layer(planes):
    layer = mf.nn.BinaryCodedLinear.from_float(torch.nn.Linear(256, 40), planes, 128)
    x = torch.randn(1, 256)
    layer.to("cuda")
    assert cuda.route(layer.plan, 1, x.dtype) == "tables float32"
    with torch.no_grad():
        y = layer(x.cuda()).cpu()
    layer.to("cpu")
    assert_within_float_bound(y, layer.qtensor, x.repeat(1, planes), layer.bias.detach())


def test_storage_round_trip():
    for weight in (*FLOAT, *IN_FLOAT32):
        q = mf.quantize(torch.randn(37, 384 if "g128" in weight else 192), weight)
        moved = on_device(q, torch.device("cuda"))
        back = mf.ops.restore(*mf.ops.prepare(moved, None), q.spec, q.shape)
        assert torch.equal(back.packed.cpu(), q.packed) and torch.equal(back.scale_data.cpu(), q.scale_data)
        assert q.zero_points is None or torch.equal(back.zero_points.cpu(), q.zero_points)
        assert torch.equal(moved.dequantize().cpu(), q.dequantize())


def test_gradients():
    q = on_device(mf.quantize(torch.randn(8, 64), "int4-g32"), torch.device("cuda"))
    x, bias = (
        torch.randn(2, 3, 64, device="cuda", requires_grad=True),
        torch.randn(8, device="cuda", requires_grad=True),
    )
    grad = torch.randn(2, 3, 8, device="cuda")
    mf.linear(x, q, bias, "int8-row").backward(grad)
    torch.testing.assert_close(x.grad, grad @ q.dequantize())
    torch.testing.assert_close(bias.grad, grad.sum((0, 1)))


def test_strides_and_offsets():
    q, x, bias, activation = case("int4-g32", "int8-row", 24, 21, 96)
    q, bias = on_device(q, torch.device("cuda")), bias.cuda()
    for dtype, activation in ((torch.float32, "int8-row"), (torch.float16, None), (torch.float32, None)):
        y, v = bias.to(dtype), x.cuda().to(dtype)
        want = mf.linear(v, q, y, activation)
        strided = torch.empty(96, 24, device="cuda", dtype=dtype).t().copy_(v)
        assert torch.equal(mf.linear(strided, q, y, activation), want)
        shifted = torch.empty(24 * 96 + 1, device="cuda", dtype=dtype)[1:].view(24, 96).copy_(v)
        assert torch.equal(mf.linear(shifted, q, y, activation), want)
        assert mf.linear(v.reshape(2, 3, 4, 96), q, y, activation).shape == (2, 3, 4, 21)
        assert mf.linear(v[:0], q, y, activation).shape == (0, 21)


def test_what_is_not_finite_makes_its_row_nan():
    q, x, bias, activation = case("int4-g32", "int8-row", 4, 9, 64)
    x[2, 3] = float("inf")
    y = on_gpu(q, x, bias, activation)
    assert y[2].isnan().all() and y[[0, 1, 3]].isfinite().all()


def test_bad_arguments_leave_the_gpu_usable():
    q, x, bias, _ = case("int4-g32", None, 3, 8, 64)
    gpu = on_device(q, torch.device("cuda"))
    weight, plan = mf.ops.prepare(gpu, None)
    linear = torch.ops.minifloat.linear
    cases = [
        (lambda: mf.linear(x, gpu), "x is on cpu but the weight is on cuda"),
        (lambda: mf.linear(x.cuda(), q), "x is on cuda:0 but the weight is on cpu"),
        (lambda: linear(x, weight, plan, None, 8), "x is on cpu but the weight is on cuda"),
        (lambda: mf.linear(x.cuda().double(), gpu), "x is Double; expected float32"),
        (lambda: mf.linear(x.cuda()[:, :60], gpu), "but the weight has K=64"),
        (lambda: mf.linear(x.cuda(), gpu, bias), "bias is on cpu but x is on cuda"),
        (lambda: mf.linear(x.cuda(), gpu, bias.cuda()[:7]), r"bias has shape \[7\], expected \[8\]"),
        (lambda: linear(x.cuda(), weight[:-1], plan, None, 8), "the packed weight must be"),
        (lambda: linear(x.cuda(), weight, plan, None, 9), "out_features=9 but the weight has N=8"),
        (
            lambda: mf.linear(x.cuda(), on_device(mf.quantize(x, "e5m2-row"), "cuda"), None, "e5m2-row"),
            "more than 32 bits",
        ),
    ]
    want = mf.linear(x.cuda(), gpu)
    for call, message in cases:
        with pytest.raises(ValueError, match=message):
            call()
    assert torch.equal(mf.linear(x.cuda(), gpu), want)


def test_out_of_memory_is_an_ordinary_error():
    q, x, _, _ = case("int4-g32", None, 3, 8, 64)
    gpu = on_device(q, torch.device("cuda"))
    want = mf.linear(x.cuda(), gpu)
    rows = torch.empty(1, 64, device="cuda").expand(
        1 << 40, 64
    )  # no memory of its own; contiguous, it would be 256 TiB
    with pytest.raises(torch.OutOfMemoryError):
        mf.linear(rows, gpu)
    assert torch.equal(mf.linear(x.cuda(), gpu), want)


@pytest.mark.parametrize("activation", [None, "int8-row", "int8-g32"])
def test_sanitized(activation):
    """Small cases of every kernel, for compute-sanitizer: it makes them some hundred times slower."""
    dtype = torch.float16 if activation is None else torch.float32
    for weight in ("int3-g32", "uint4-g32-zp", "e2m3-row", "e3m2-g64"):
        for m, n, k in ((1, 17, 320), (19, 33, 320)):
            check(Case(weight, activation, m, n, k, dtype))
    check(Case("nf4-g64", None, 3, 17, 320))


def test_sanitized_by_preference():
    check(Case("ternary-g128", "binary-row", 19, 33, 384, prefer="bits"))
    check(Case("binary-g64", None, 2, 33, 320, prefer="tables"))
    check(Case("uint3-row-zp", None, 19, 33, 323, torch.float16, "product"))
    check(Case("int3-g32", None, 19, 33, 320, torch.float16, "wide"))
    check(Case("int3-g32", "int8-row", 19, 33, 320, prefer="wide"))
