"""LUTs are those of the shipped table, whichever side the table has a pair on; costs are means over operations."""

import pytest
import torch
from torch import nn

import minifloat as mf
from minifloat.explore.costs import cost
from minifloat.explore.luts import bits, family, luts_per_mac
from minifloat.rtl import costs


def test_every_pair_of_the_table_is_found():
    for pair, entry in costs.load()["mac"].items():
        assert luts_per_mac(*pair.split()) == entry["lut"]


def test_sides_may_be_exchanged():
    table = costs.load()["mac"]
    assert "int8 e2m1" not in table
    assert luts_per_mac("int8", "e2m1") == table["e2m1 int8"]["lut"]


def test_what_was_not_measured_has_no_cost():
    assert luts_per_mac("int4", None) is None
    assert luts_per_mac("e7m0", "e1m6") is None


def test_families_and_bits():
    assert [family(s) for s in ("int4-g32", "mxfp4", "e4m3fn-row", "nf4-g64")] == ["int", "float", "float", "codebook"]
    assert [bits(s) for s in ("int3-row", "mxfp6-e2m3", "e4m3fn-row", "nf4-g64", None)] == [3, 6, 8, 4, 32]


def test_mixed_formats_cost_their_mean_over_operations():
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 16))
    formats = {"0": {"weight": "int8-row", "activation": "int8-row"}}
    mf.quantize_(model, weight="int4-row", activation="int4-row", overrides=formats)
    found = cost(model, torch.randn(5, 32))
    assert found["macs"] == 5 * (32 * 64 + 64 * 16)
    assert found["luts_per_mac"] == pytest.approx((62 * 32 * 64 + 28 * 64 * 16) / (32 * 64 + 64 * 16))
    row_scales = 32 * (64 + 16)
    assert found["bits_per_weight"] == pytest.approx((8 * 32 * 64 + 4 * 64 * 16 + row_scales) / (32 * 64 + 64 * 16))
    assert found["layer_time_ms"] > 0


def test_one_float_layer_among_quantized_ones_leaves_hardware_undefined():
    model = nn.Sequential(nn.Linear(32, 64), nn.Linear(64, 16))
    mf.quantize_(model, weight="int4-row", activation="int4-row", overrides={"1": {"activation": None}})
    assert cost(model, torch.randn(5, 32))["luts_per_mac"] is None


def test_planes_cost_as_many_multiplications_of_one_bit():
    layer = mf.nn.BinaryCodedLinear.from_float(nn.Linear(32, 16), 3, 16, "float32", "int8-row")
    found = cost(nn.Sequential(layer), torch.randn(5, 32))
    assert found["macs"] == 5 * 32 * 16 and found["luts_per_mac"] == 3 * luts_per_mac("binary", "int8")
    assert found["bits_per_weight"] == 3 * (1 + 32 / 16) and found["model_bytes"] == layer.nbytes + 4 * 16
