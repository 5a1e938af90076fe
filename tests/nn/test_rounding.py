"""Rounding in torch: the formats' own values for every midpoint, its neighbours, and whatever else."""

import numpy as np
import pytest
import torch

import minifloat as mf
from minifloat.formats import format_names
from minifloat.nn.rounding import find_scales, nearest_values, scaled_values

NAMES = [*(name for name in format_names() if name != "e8m0fnu"), "e4m2", "e1m2", "e5m0", "ue3m2", "e3m0"]


@pytest.mark.parametrize("name", NAMES)
def test_rounds_as_the_format_does(name):
    f = mf.Format.parse(name)
    values = np.unique(f.values[f.is_number])
    middle = (values[:-1] + (values[1:] - values[:-1]) / 2).astype(np.float32)
    rng = np.random.default_rng(0)
    x = np.concatenate([values, middle, rng.normal(size=1000), rng.normal(size=1000) * f.max, [0.0, 1e30, -1e30]])
    x = x.astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, np.float32(-np.inf))])
    x = x[np.isfinite(x)]
    found = nearest_values(torch.from_numpy(x), f)
    assert torch.equal(found, torch.from_numpy(f.decode(f.encode(x))))
    assert nearest_values(torch.tensor([float("nan")]), f).isnan().all()


@pytest.mark.parametrize(
    "spec", ["int8-row", "uint4-row-zp", "e4m3fn-row-e8m0", "e2m1-tensor-bf16", "uint8-tensor", "e3m2-row"]
)
def test_scales_are_those_of_the_spec(spec):
    spec = mf.QuantSpec.parse(spec)
    x = torch.randn(5, 33) * torch.tensor([1e-30, 1, 30, 0, 1e30])[:, None]
    scales, points = find_scales(x, spec)
    q = mf.emulator.quantize(x, spec)
    assert np.array_equal(scales.numpy(), q.scales)
    assert points is None or np.array_equal(points.numpy(), q.zero_points)
    values = scaled_values(x, spec, scales, points)
    expected = spec.format.values[q.codes] - (0 if points is None else q.zero_points)
    assert np.array_equal(values.numpy(), expected.astype(np.float32))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_scales_of_what_is_not_finite_are_nan(value):
    x = torch.randn(3, 8)
    x[1, 4] = value
    for spec in ("int8-row", "uint8-row", "uint8-row-zp", "e4m3fn-row-e8m0"):
        assert find_scales(x, mf.QuantSpec.parse(spec))[0].isnan().flatten().tolist() == [False, True, False]
