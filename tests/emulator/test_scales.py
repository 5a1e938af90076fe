"""How scales are chosen and stored, against fractions, torch's bfloat16 and ml_dtypes' e4m3fn."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from emulator.exact_oracle import LARGEST, float32_of
from minifloat import Format, emulator
from minifloat.emulator import quantize

# The largest t with both t and -t in range, or the largest value of an unsigned format.
MAPPED = {
    **{"e2m1": 6, "e2m3": 7.5, "e3m2": 28, "e4m3fn": 448, "e5m2": 57344, "e3m4": 31, "e4m3fnuz": 240, "e7m0": 2.0**64},
    **{"int8": 127, "int4": 7, "int1": 1, "uint8": 255, "uint4": 15, "ue3m2": 28},
    **{
        "binary": 1,
        "ternary": 1,
        "nf4": 1,
        "dynamic8": float(np.float32(0.1 + 0.9 * 127 / 128)),
        "flint4": 16,
        "uflint4": 64,
    },
}
PLACES = ["tensor", "row", "g8", "g24"]
SMALLEST, LARGEST_BF16 = 2.0**-126, float(torch.finfo(torch.bfloat16).max)
float32s = st.floats(-(2.0**126), 2.0**126, width=32)


def blocks_of(x: np.ndarray, place: str) -> list[np.ndarray]:
    size = {"tensor": x.size, "row": x.shape[1]}.get(place) or int(place[1:])
    return [part for part in x.reshape(-1, size)]


def magnitude(block: np.ndarray, name: str) -> float:
    return float(np.max(np.abs(block) if Format.parse(name).signed else np.maximum(block, 0)))


def quotient(a, b) -> float:
    return float(float32_of(Fraction(float(a)) / Fraction(float(b))))


def stored_scale(top: float, name: str, scale_format: str, tensor_scale: float = 1.0) -> float:
    """The absmax rule as docs/formats.md and the numerics contract state it."""
    if scale_format == "e8m0":  # OCP MX, section 6.3: difference of the two floors of log2
        exponent = -127 if top == 0 else exact_log2(top) - exact_log2(MAPPED[name])
        return 2.0 ** min(max(exponent, -126), 127)
    scale = quotient(quotient(top, MAPPED[name]), tensor_scale)
    if scale_format == "e4m3fn":
        return float(np.float32(min(max(scale, 2.0**-9), 448.0)).astype(ml_dtypes.float8_e4m3fn))
    scale = max(scale, SMALLEST)
    return min(float(torch.tensor(scale).bfloat16()), LARGEST_BF16) if scale_format == "bf16" else scale


def exact_log2(x: float) -> int:
    """floor(log2(x)) by comparing with powers of two, one by one."""
    return next(e for e in range(-150, 129) if Fraction(2) ** e <= Fraction(x) < Fraction(2) ** (e + 1))


def data(seed: int, shape=(6, 24)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape) * np.exp2(rng.integers(-30, 30, shape[0]))[:, None]
    x[0], x[1], x[2, :8] = 0, np.abs(x[1]), -np.abs(x[2, :8])
    return x.astype(np.float32)


@pytest.mark.parametrize("name", MAPPED)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("scale_format", ["f32", "bf16", "e8m0", "e4m3fn"])
def test_absmax_scales_and_codes(name, place, scale_format):
    f, x = Format.parse(name), data(1)
    q = quantize(x, f"{name}-{place}-{scale_format}")
    blocks = blocks_of(x, place)
    tops = [magnitude(b, name) for b in blocks]
    tensor_scale = 1.0
    if scale_format == "e4m3fn":
        tensor_scale = max(quotient(max(tops), float(np.float32(448) * np.float32(MAPPED[name]))), SMALLEST)
        assert q.tensor_scale == tensor_scale
    else:
        assert q.tensor_scale is None
    expected = [stored_scale(top, name, scale_format, tensor_scale) for top in tops]
    np.testing.assert_array_equal(q.scales.ravel(), expected)
    assert q.scales.dtype == np.float32 and q.scales.shape == (1, 1) if place == "tensor" else q.scales.shape[0] == 6
    assert (q.scales >= SMALLEST).all() and np.isfinite(q.scales).all()
    for block, codes, scale in zip(blocks, blocks_of(q.codes, place), expected, strict=True):
        step = float32_of(Fraction(scale) * Fraction(tensor_scale))
        np.testing.assert_array_equal(codes, f.encode(np.array([quotient(v, step) for v in block], np.float32)))


@pytest.mark.parametrize("name", ["e2m1", "e4m3fn", "e5m2", "int8", "e3m4", "nf4"])
@pytest.mark.parametrize("scale_format", ["f32", "bf16", "e8m0", "e4m3fn"])
def test_scales_at_the_ends_of_float32(name, scale_format):
    """Zero, subnormals, float32's largest, neighbours of powers of two: no scale is zero, subnormal or infinite."""
    powers = 2.0 ** np.arange(-126, 128, 7)
    tops = [
        0,
        2.0**-149,
        2.0**-130,
        SMALLEST,
        float(LARGEST),
        *powers,
        *np.nextafter(np.float32(powers), np.float32(0)),
    ]
    for top in np.array(tops, np.float32):
        x = np.array([[top, -top, 0, top / 2]], np.float32)
        q = quantize(x, f"{name}-row-{scale_format}")
        if scale_format != "e4m3fn":
            assert q.scales[0, 0] == stored_scale(float(top), name, scale_format)
        else:
            assert 448 >= q.scales[0, 0] >= 2.0**-9 and np.isfinite(q.tensor_scale) and q.tensor_scale >= SMALLEST
        assert np.isfinite(q.scales).all() and (q.scales >= (2.0**-9 if scale_format == "e4m3fn" else SMALLEST)).all()
        values = emulator.dequantize(q)
        assert np.isfinite(values).all() and (top != 0 or not values.any())


def test_mx_examples():
    """OCP MX: 2 ** (floor(log2 absmax) - emax); what is above the largest element times that scale saturates."""
    x = np.zeros((4, 32), np.float32)
    x[:, 0] = [6, 7.9, 4, 3.9]
    q = quantize(x, "mxfp4")
    np.testing.assert_array_equal(q.scales[:, 0], [1, 1, 1, 0.5])
    np.testing.assert_array_equal(emulator.dequantize(q)[:, 0], [6, 6, 4, 3])
    for preset, emax in {"mxfp6-e2m3": 2, "mxfp6-e3m2": 4, "mxfp8-e4m3": 8, "mxfp8-e5m2": 15, "mxint8": 6}.items():
        np.testing.assert_array_equal(
            quantize(x, preset).scales[:, 0], np.exp2([2 - emax, 2 - emax, 2 - emax, 1 - emax])
        )


def test_nvfp4_example():
    """The tensor scale maps the largest absmax to 448 * 6; the largest group's own scale is then 448."""
    x = np.zeros((2, 32), np.float32)
    x[0, 3], x[0, 16], x[1, 0] = 448 * 6 * 2, -12, 0.001
    q = quantize(x, "nvfp4")
    assert q.tensor_scale == 2
    np.testing.assert_array_equal(q.scales, [[448, 1], [2.0**-9, 2.0**-9]])  # the least scale, also where all is zero
    np.testing.assert_array_equal(emulator.dequantize(q)[0, [3, 16]], [448 * 6 * 2, -12])


def squared_error(q, x) -> np.ndarray:
    step = q.scales if q.tensor_scale is None else q.scales * q.tensor_scale  # one float32 step, as the codes were made
    values = q.spec.format.values[q.codes].reshape(*step.shape, -1)
    if q.zero_points is not None:
        values = values - q.zero_points[..., None]
    return ((values * step[..., None].astype(float) - x.reshape(values.shape)) ** 2).sum(-1)


@pytest.mark.parametrize(
    "spec",
    [
        *("e2m1-g8-e8m0", "e2m1-g8", "int4-g8-bf16", "int2-row", "e2m1-g8-e4m3fn", "nf4-g24", "int8-row-e8m0"),
        *("int4-g8-zp", "uint4-row-zp", "int2-row-bf16-zp", "ternary-row", "e3m2-tensor"),
    ],
)
def test_mse_is_never_worse_than_absmax(spec):
    better = 0
    for seed in range(5):
        x = np.random.default_rng(seed).standard_normal((8, 24)).astype(np.float32)
        plain, best = (squared_error(quantize(x, s), x) for s in (spec, f"{spec}-mse"))
        assert (best <= plain).all()
        better += (best < plain).sum()
    assert better > 0 or spec == "int8-row-e8m0"  # where the floor rule leaves nothing to gain


@given(hnp.arrays(np.float32, (2, 8), elements=float32s), st.sampled_from(["", "-mse"]))
def test_symmetric_error_is_at_most_half_a_step(x, rule):
    """int8 with float32 scales: every value lies in range, so each is within half a step, up to float32's own error."""
    q = quantize(x, f"int8-row{rule}")
    error = np.abs(emulator.dequantize(q) - x)
    if not rule:
        assert (error <= 0.5 * q.scales * (1 + 1e-4)).all()
    assert (np.sign(emulator.dequantize(q)) * np.sign(x) >= 0).all()


@pytest.mark.parametrize("scale_format", ["f32", "bf16"])
@pytest.mark.parametrize("name", ["int2", "int4", "int8", "uint1", "uint4", "uint8"])
@pytest.mark.parametrize("place", PLACES)
def test_zero_points(name, place, scale_format):
    f, x = Format.parse(name), data(2) + np.float32(3)
    low, high = int(f.min), int(f.max)
    q = quantize(x, f"{name}-{place}-{scale_format}-zp")
    flat = zip(blocks_of(x, place), blocks_of(q.codes, place), q.scales.ravel(), q.zero_points.ravel(), strict=True)
    for block, codes, scale, zero_point in flat:
        bottom, top = min(float(block.min()), 0.0), max(float(block.max()), 0.0)
        expected = max(quotient(float32_of(Fraction(top) - Fraction(bottom)), high - low), SMALLEST)
        expected = float(torch.tensor(expected).bfloat16()) if scale_format == "bf16" else expected
        assert scale == expected
        offset = float32_of(low - Fraction(quotient(bottom, scale)))
        assert zero_point == min(max(round(Fraction(float(offset))), low), high)
        grid = [min(max(round(Fraction(quotient(v, scale))) + int(zero_point), low), high) for v in block]
        np.testing.assert_array_equal(f.decode(codes), grid)
    sparse = np.where(np.arange(24) % 3 == 0, 0, x)
    assert not emulator.dequantize(quantize(sparse, f"{name}-{place}-{scale_format}-zp"))[:, ::3].any()  # 0 stays 0
