"""Layer: real shapes of stream, corners at full K, requantized outputs, backpressure, reset in mid-stream."""

import numpy as np
import pytest

from minifloat.emulator import quantize
from minifloat.formats import Format
from minifloat.rtl.layer import Layer
from minifloat.rtl.layer_simulation import LayerSimulation, input_beats
from minifloat.rtl.requantize import Requantize
from minifloat.rtl.stream import reset

from .support import corner_codes, need_simulator

F = Format.parse


def make(name, weight, activation, n, k, lanes, depth, out=None, with_bias=True, per_row=True):
    rng = np.random.default_rng(len(name) + n + k)
    q = quantize(rng.standard_normal((n, k)).astype(np.float32), f"{weight}-row")
    q.codes[0] = np.flatnonzero(q.spec.format.is_number)[-1]
    layer = Layer.from_quantized(q, activation, lanes, name, depth=depth)
    bias = rng.integers(-layer.sum_range[1] // 2 - 1, layer.sum_range[1] // 2 + 2, n) if with_bias else None
    requantize = None
    if out:
        # Typical sums are a fraction of the largest: scale so that many codes are reached and some saturate.
        typical = float(layer.sum_range[1]) / 8
        scales = F(out).max / typical * (rng.uniform(0.5, 2, n) if per_row else np.ones(1))
        requantize = Requantize.from_scales(F(out), scales)
    return Layer.from_quantized(q, activation, lanes, name, depth=depth, bias=bias, requantize=requantize)


LAYERS = [
    make("plain", "e2m1", "int8", 5, 24, 8, 3, with_bias=False),
    make("wide", "e4m3fn", "e4m3fn", 3, 16, 4, 4),
    make("single", "int4", "int8", 1, 6, 6, 1),
    make("one_beat", "int8", "uint8", 40, 3, 3, 2),
    make("to_int8", "int4", "int8", 7, 30, 5, 2, "int8"),
    make("to_uint4", "e2m1", "e4m3fn", 6, 8, 2, 3, "uint4"),
    make("to_e2m1", "int8", "int8", 9, 12, 4, 3, "e2m1"),
    make("to_e4m3fn", "e3m2", "e2m3", 8, 32, 16, 4, "e4m3fn"),
    make("to_e4m3fnuz", "e2m1", "int8", 8, 16, 16, 1, "e4m3fnuz", with_bias=False),
    make("to_e5m2", "e2m1", "e2m1", 4, 16, 2, 3, "e5m2", per_row=False),
    make("to_e3m0", "int3", "int5", 11, 10, 2, 3, "e3m0"),
    make("nf4", "nf4", "int8", 4, 8, 4, 3),
]


@pytest.fixture(scope="module")
def simulation():
    need_simulator()
    return LayerSimulation(LAYERS)


@pytest.mark.parametrize("gaps", [(0.0, 0.0), (0.5, 0.1), (0.1, 0.8)])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: layer.name)
def test_layer_equals_reference(simulation, layer, gaps):
    rng = np.random.default_rng(3)
    corners = corner_codes(layer.pair.activation, layer.k, rng)
    numbers = np.flatnonzero(layer.pair.activation.is_number)
    x = np.concatenate([np.stack(corners), rng.choice(numbers, (60, layer.k))]).astype(np.uint8)
    got, clocks = simulation(layer.name, x, gaps)
    want = layer.reference(x)
    wrong = np.argwhere(got != want)
    assert not len(wrong), f"{layer.name}: {len(wrong)} of {want.size} differ, first at {wrong[0]}"
    if gaps == (0.0, 0.0):
        assert clocks <= len(x) * layer.clocks_a_vector + 20


def test_reset_in_mid_stream(simulation):
    layer = LAYERS[0]
    rng = np.random.default_rng(4)
    x = rng.integers(0, 256, (3, layer.k)).astype(np.uint8)
    data, _ = input_beats(layer, x)
    drive = {"s_tdata_i": data[:4], "s_tvalid_i": 1, "rst_ni": 1}
    for clocks in (1, 3, 4, 9):
        bench = simulation.bench
        bench.run({layer.name: drive | {"s_tdata_i": np.resize(data, (clocks, data.shape[1]))}}, clocks)
        reset(bench, layer.name)
        got, _ = simulation(layer.name, x)
        assert (got == layer.reference(x)).all()


def test_a_missing_tlast_is_reported(simulation):
    layer = LAYERS[0]
    bench = simulation.bench
    reset(bench, layer.name)
    drive = {"s_tvalid_i": 1, "rst_ni": 1, "s_tlast_i": [0, 0, 0]}
    result = bench.run({layer.name: drive}, 3)
    assert bench.output(result, layer.name, "error_o")[:, 0].tolist() == [0, 0, 1]
    reset(bench, layer.name)


def test_refusals_say_what_would_work():
    q = quantize(np.ones((2, 32), np.float32), "e2m1-g32-e8m0")
    with pytest.raises(ValueError, match="a scale per group.*quantize to 'e2m1-row'"):
        Layer.from_quantized(q, "int8")
    row = quantize(np.ones((2, 30), np.float32), "e2m1-row")
    with pytest.raises(ValueError, match="lanes=16 does not divide K=30: 15 does"):
        Layer.from_quantized(row, "int8", 16)
    with pytest.raises(ValueError, match="hardware supports codebooks of up to 4 bits"):
        Layer.from_quantized(row, "dynamic8", 15).module()
    with pytest.raises(ValueError, match="3 biases for 2 outputs"):
        Layer.from_quantized(row, "int8", 15, bias=np.zeros(3, int))
