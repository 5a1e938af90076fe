"""Binary coding of weights: what alternating least squares promises, and what the planes hold."""

import pytest
import torch

import minifloat as mf
from minifloat.binary_coding import Store, binary_code, binary_decode, binary_spec
from minifloat.binary_descent import SortedGroups, equations, greedy, one_by_one, runs
from ptq.layer_data import spread

SCALES = ["float32", "bfloat16", "e8m0", "e4m3fn"]


def errors(w, q, planes, group):
    """float64 (N, groups): squared errors, from the emulator's real values."""
    real = torch.from_numpy(mf.emulator.binary_coded_weight(q, planes))
    return (real - w.double()).square().unflatten(1, (-1, group)).sum(-1)


def planes_of(q, planes):
    """Signs, float64 (N, planes, K), and scales, float64 (N, planes, groups)."""
    b = q.codes.double() * 2 - 1
    step = q.scales.double() * (1 if q.tensor_scale is None else q.tensor_scale.double())
    return b.unflatten(1, (planes, -1)), step.unflatten(1, (planes, -1))


@pytest.mark.parametrize("kind", ["uniform", "normal", "student"])
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_iterations_never_raise_the_error_of_a_group(kind, scale, planes):
    w = spread(kind)
    found = [errors(w, binary_code(w, planes, 32, scale, i), planes, 32) for i in (0, 1, 2, 3, 5, 10, 30)]
    for before, after in zip(found, found[1:], strict=False):
        assert (after <= before).all()
    if planes > 1 and scale != "e8m0":
        assert found[-1].sum() < 0.99 * found[0].sum()


@pytest.mark.parametrize("kind", ["uniform", "normal", "student"])
@pytest.mark.parametrize("scale", ["float32", "bfloat16"])
@pytest.mark.parametrize("planes", [1, 2, 3, 5, 8])
@pytest.mark.parametrize("iterations", [0, 20])
def test_the_error_is_never_above_that_of_greedy_codes(kind, scale, planes, iterations):
    w = spread(kind)
    rest, real = w.double().unflatten(1, (-1, 32)), 0
    for _ in range(planes):  # the greedy method, from its definition
        alpha, b = rest.abs().mean(-1, keepdim=True), torch.where(rest < 0, -1.0, 1.0)
        rest, real = rest - alpha * b, real + alpha.to(getattr(torch, scale)).double() * b
    greedy = (real - w.double().unflatten(1, (-1, 32))).square().sum(-1)
    assert (errors(w, binary_code(w, planes, 32, scale, iterations), planes, 32) <= greedy).all()


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("planes", [1, 2, 3, 5])
def test_every_code_is_the_best_of_all(scale, planes):
    w = spread("normal")
    q = binary_code(w, planes, 16, scale)
    _, alpha = planes_of(q, planes)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0]).double()] * planes).reshape(-1, planes)
    levels = (alpha.permute(0, 2, 1)[:, :, None] * signs).sum(-1)  # (N, groups, 2**planes)
    distance = (w.double().unflatten(1, (-1, 16))[..., None] - levels[:, :, None]).abs().amin(-1)
    real = torch.from_numpy(mf.emulator.binary_coded_weight(q, planes))
    chosen = (real - w.double()).abs().unflatten(1, (-1, 16))
    assert (chosen <= distance).all()


@pytest.mark.parametrize("planes", [1, 2, 3, 4])
def test_scales_are_the_best_for_their_codes(planes):
    w = spread("normal", 8, 128)
    q = binary_code(w, planes, 64, "float32", 200)
    b, _ = planes_of(q, planes)
    b = b.unflatten(2, (-1, 64)).permute(0, 2, 3, 1)  # (N, groups, G, planes)
    target = w.double().unflatten(1, (-1, 64))[..., None]
    best = (b @ torch.linalg.lstsq(b, target).solution - target).square().sum((-1, -2))
    torch.testing.assert_close(errors(w, q, planes, 64), best, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", SCALES)
def test_scales_make_up_for_the_rounding_of_those_before(scale):
    """Given the others, the last one is the best that can be stored."""
    blocks = spread("normal").reshape(-1, 16)
    rounded = Store(binary_spec(64, 16, scale), blocks).rounded
    groups = SortedGroups.of(blocks)
    matrix, vector = equations(runs(groups, greedy(groups, 3)))
    alpha = one_by_one(matrix, vector, rounded)
    last = (vector[:, 2] - (matrix[:, 2, :2] * alpha[:, :2]).sum(1)) / matrix[:, 2, 2]
    assert (last > 0).all() and torch.equal(rounded(last), rounded(alpha[:, 2])) and torch.equal(rounded(alpha), alpha)


@pytest.mark.parametrize("scale", SCALES)
def test_planes_are_in_the_order_of_their_scales(scale):
    q = binary_code(spread("normal"), 4, 16, scale)
    _, alpha = planes_of(q, 4)
    assert (alpha.diff(dim=1) <= 0).all() and (alpha > 0).all() and str(q.spec) == str(binary_spec(64, 16, scale))


@pytest.mark.parametrize("planes", range(1, 9))
@pytest.mark.parametrize("scale", ["float32", "bfloat16"])
def test_a_uniform_grid_is_held_exactly(planes, scale):
    """The values of an integer quantizer, its zero in the middle between two of them: alpha = 2**i * step / 2."""
    generator = torch.Generator().manual_seed(planes)
    codes = (torch.rand(6, 64, generator=generator).pow(3) * 2**planes).floor()  # most of them low
    codes[:, ::32], codes[:, 1::32] = 0, 2**planes - 1
    step = torch.tensor([0.5, 3.0, 0.0078125]).repeat(2)[:, None]
    w = (codes - (2**planes - 1) / 2) * step
    q = binary_code(w, planes, 32, scale)
    assert torch.equal(binary_decode(q, planes), w)
    assert torch.equal(torch.from_numpy(mf.emulator.binary_coded_weight(q, planes)), w.double())


@pytest.mark.parametrize("bits", range(1, 8))
def test_an_integer_weight_is_its_bits_and_a_constant_plane(bits):
    """sum of 2**i * u[i] - 2**(bits - 1), u = (b + 1) / 2: so bits + 1 planes hold what intN holds."""
    given = mf.quantize(spread("normal"), f"int{bits}-g32-bf16")
    flipped = (given.codes.to(torch.int64) ^ (1 << (bits - 1))).to(torch.uint8)  # two's complement as 0 to 2**bits - 1
    planes = [(flipped >> i) & 1 for i in range(bits)] + [torch.zeros_like(flipped)]
    scales = [given.scales * 2.0 ** (i - 1) for i in range(bits)] + [given.scales / 2]
    packed = torch.ops.minifloat.pack(torch.cat(planes, 1), 1)
    q = mf.QTensor("binary-g32", (32, 64 * (bits + 1)), packed, torch.cat(scales, 1))
    assert torch.equal(binary_decode(q, bits + 1), given.dequantize())


def test_importance_moves_the_error_to_where_it_counts_less():
    w, h = spread("student"), torch.zeros(64)
    h[::8] = 1
    with_h, without = (binary_code(w, 3, 32, importance=importance) for importance in (h, None))
    found = [torch.from_numpy(mf.emulator.binary_coded_weight(q, 3)) - w.double() for q in (with_h, without)]
    counted = [error[:, ::8].square().sum().item() for error in found]
    everywhere = [error.square().sum().item() for error in found]
    assert counted[0] < 0.1 * counted[1] and everywhere[0] > everywhere[1]


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("importance", [None, torch.zeros(64)])
def test_weights_that_are_alike_or_zero(scale, importance):
    w = torch.zeros(4, 64)
    w[1], w[2, 3], w[3] = 2.0, -5.0, torch.tensor([1.0, -1.0]).repeat(32)
    for planes in (1, 3):
        real = torch.from_numpy(
            mf.emulator.binary_coded_weight(binary_code(w, planes, 32, scale, importance=importance), planes)
        )
        assert real.isfinite().all() and real[0].abs().max() < (1e-3 if scale == "e4m3fn" else 1e-30)
        relative = ((real - w).abs() / w.abs())[1::2]
        assert relative.max() <= (2.0**-4 if scale == "e4m3fn" else 2.0**-22)


def test_few_different_weights_make_singular_systems():
    """Planes of a group are then alike in the greedy start; the descent must get away from there."""
    generator = torch.Generator().manual_seed(0)
    w = torch.tensor([1.0, 2.5, -7.0])[torch.randint(0, 3, (64, 64), generator=generator)]
    assert errors(w, binary_code(w, 4, 32, "float32"), 4, 32).max() < 1e-9
    pruned = spread("normal") * (torch.rand(32, 64, generator=generator) < 0.1)
    assert errors(pruned, binary_code(pruned, 4, 32), 4, 32).sum() < 0.005 * pruned.square().sum()


def test_chunks_do_not_change_the_result(monkeypatch):
    w = spread("normal")
    whole = binary_code(w, 3, 16, "e4m3fn", importance=torch.arange(64))
    monkeypatch.setattr("minifloat.binary_coding.CHUNK", 100)
    parts = binary_code(w, 3, 16, "e4m3fn", importance=torch.arange(64))
    assert torch.equal(whole.packed, parts.packed) and torch.equal(whole.scale_data, parts.scale_data)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"planes": 0}, "1 to 8 planes, got 0"),
        ({"planes": 9}, "1 to 8 planes, got 9"),
        ({"planes": 2.0}, "1 to 8 planes, got 2.0"),
        ({"group": 24}, "K=64 is not a multiple of the group 24: take 16 or 32, or None for one scale a row"),
        ({"group": 128}, "K=64 is not a multiple of the group 128: take 64, or None for one scale a row"),
        ({"group": 0}, "group size 0 must be between 1 and"),
        ({"scale": "float8"}, "scale format 'float8' must be one of float32, bfloat16, e8m0fnu, e4m3fn"),
        ({"scale": "bf16-mse"}, "scale format 'bf16-mse' must be one of"),
        ({"iterations": -1}, "iterations is -1, expected 0 or more"),
        ({"w": torch.zeros(4, 0)}, "without inputs"),
        ({"w": torch.full((4, 64), torch.nan)}, r"binary_code: w holds nan at \(0, 0\)"),
        ({"w": torch.zeros(4, 64).double()}, "expected a matrix .* got torch.float64"),
    ],
)
def test_refuses(given, message):
    with pytest.raises(ValueError, match=message):
        binary_code(**{"w": torch.zeros(4, 64), "planes": 3} | given)
