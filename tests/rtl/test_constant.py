"""ConstantLayer: every kind of weight and activation, corners and random vectors, one a clock."""

import numpy as np
import pytest

from minifloat.emulator import quantize
from minifloat.rtl.constant import ConstantLayer
from minifloat.rtl.shift_add import share, signed_digits
from minifloat.rtl.simulate import Bench, integers_of

from .support import corner_codes, need_simulator
from .test_dot import pack_lanes

CASES = [
    ("int4", "int8", 8, 12, 2, False),
    ("e2m1", "e2m3", 5, 9, 1, True),
    ("e4m3fn", "e4m3fn", 3, 4, 3, False),
    ("ternary", "uint4", 16, 16, 2, True),
    ("int8", "e3m0", 1, 1, 1, True),
    ("int2", "e5m2", 2, 6, 4, False),
]


def make(i: int) -> ConstantLayer:
    weight, activation, n, k, levels, with_bias = CASES[i]
    rng = np.random.default_rng(i)
    q = quantize(rng.standard_normal((n, k)).astype(np.float32), f"{weight}-row")
    q.codes[0] = 0  # a row without any term
    bias = rng.integers(-50, 50, n) if with_bias else None
    return ConstantLayer.from_quantized(q, activation, f"dut{i}", levels=levels, bias=bias)


def test_layers_are_exact():
    need_simulator()
    rng = np.random.default_rng(0)
    layers = [make(i) for i in range(len(CASES))]
    inputs, drive = {}, {}
    for layer in layers:
        numbers = np.flatnonzero(layer.activation.is_number)
        corners = np.stack(corner_codes(layer.activation, layer.k, rng))
        inputs[layer.name] = np.concatenate([corners, rng.choice(numbers, (295, layer.k))]).astype(np.uint8)
        packed = pack_lanes(inputs[layer.name], layer.activation.bits)
        drive[layer.name] = {"x_i": np.concatenate([packed, np.zeros((20, packed.shape[1]), np.uint32)])}
        drive[layer.name]["valid_i"] = np.arange(320) < 300
    with Bench([layer.module() for layer in layers], [p.render() for layer in layers for p in layer.parts()]) as bench:
        result = bench.run(drive, 320)
        for layer in layers:
            valid = bench.output(result, layer.name, "valid_o")[:, 0] & 1
            assert np.flatnonzero(valid[layer.latency - 1 :])[0] == 0 and valid[layer.latency - 1 :].sum() == 300
            words = integers_of(
                bench.output(result, layer.name, "y_o").astype(object), 32 * result.shape[1] + 64, False
            )
            words = words[layer.latency - 1 :][:300]
            bits = layer.out_bits
            want = layer.reference(inputs[layer.name])
            for n in range(layer.n):
                got = words >> (bits * n) & ((1 << bits) - 1)
                got = np.where(got >= 1 << (bits - 1), got - (1 << bits), got)
                assert (got == want[:, n]).all(), f"{layer.name}: output {n} differs"


def test_sharing_saves_adders_and_keeps_the_matrix():
    rng = np.random.default_rng(1)
    matrix = rng.integers(-100, 100, (10, 8)).tolist()
    program = share(matrix)
    plain = sum(max(sum(len(signed_digits(v)) for v in row) - 1, 0) for row in matrix)
    assert program.adders < plain
    x = rng.integers(-1000, 1000, 8).tolist()
    values = list(x)
    for node in program.nodes:
        values.append((values[node.left] << node.left_shift) + node.sign * (values[node.right] << node.right_shift))
    got = [sum(sign * (values[n] << s) for (n, s), sign in row.items()) for row in program.rows]
    assert got == [sum(w * v for w, v in zip(row, x, strict=True)) for row in matrix]


@pytest.mark.parametrize("value", [0, 1, -1, 7, -9, 255, 1023, -(2**70) + 3])
def test_signed_digits(value):
    digits = signed_digits(value)
    assert sum(sign << shift for shift, sign in digits) == value
    shifts = [shift for shift, _ in digits]
    assert all(b - a > 1 for a, b in zip(shifts, shifts[1:], strict=False))


def test_refusals_say_what_would_work():
    with pytest.raises(ValueError, match="limit of 4096: use a Layer"):
        ConstantLayer.from_quantized(quantize(np.ones((65, 64), np.float32), "int4-row"), "int8")
    with pytest.raises(ValueError, match="quantize to 'e2m1-row'"):
        ConstantLayer.from_quantized(quantize(np.ones((2, 32), np.float32), "e2m1-g32"), "int8")
