"""The named types against ml_dtypes and torch.

Where they differ from us: both turn fp8 overflow into NaN or infinity (our "special"; torch saturates e4m3fn) but
ml_dtypes saturates fp4 and fp6; ml_dtypes rounds ties of e8m0fnu upwards, we to the even code, and everything between
2**-127 and 2**-126; NaN has several codes; ml_dtypes rounds float64 twice, so it is fed float32.
"""

import ml_dtypes
import numpy as np
import pytest
import torch

from minifloat import Format

FP8 = {
    "float8_e3m4": "e3m4ieee",
    "float8_e4m3": "e4m3ieee",
    "float8_e4m3b11fnuz": "e4m3b11fnuz",
    "float8_e4m3fn": "e4m3fn",
    "float8_e4m3fnuz": "e4m3fnuz",
    "float8_e5m2": "e5m2",
    "float8_e5m2fnuz": "e5m2fnuz",
}
SMALL = {"float4_e2m1fn": "e2m1", "float6_e2m3fn": "e2m3", "float6_e3m2fn": "e3m2"}
E8M0 = {"float8_e8m0fnu": "e8m0fnu"}
INTEGERS = ["int1", "int2", "int4", "uint1", "uint2", "uint4"]
TORCH = ["e4m3fn", "e4m3fnuz", "e5m2", "e5m2fnuz"]


def float32_probes(f: Format, random_count: int = 100_000) -> np.ndarray:
    values = np.unique(f.values[f.is_number])
    values = np.append(values, min(2 * values[-1] - values[-2], 1.5 * 2.0**127))
    base = np.concatenate([values, (values[1:] + values[:-1]) / 2]).astype(np.float32)
    near = [np.nextafter(base, np.float32(end)) for end in (np.inf, -np.inf)]
    rng = np.random.default_rng(3)
    wide = np.exp2(rng.uniform(np.log2(f.smallest) - 2, min(np.log2(f.max) + 1, 127), random_count))
    x = np.concatenate([base, *near, wide.astype(np.float32), np.float32([0, 1e38, np.inf])])
    return np.concatenate([x, -x]) if f.signed else x


def assert_codes(f: Format, x, ours, theirs):
    is_nan = np.isnan(f.values)
    wrong = (ours != theirs) & ~(is_nan[ours] & is_nan[theirs])
    assert not wrong.any(), f"{f}: (x, ours, theirs) {[(x[i], ours[i], theirs[i]) for i in np.flatnonzero(wrong)[:5]]}"


@pytest.mark.parametrize(("dtype", "name"), {**FP8, **SMALL, **E8M0}.items())
def test_decode(dtype, name):
    f = Format.parse(name)
    codes = np.arange(1 << f.bits, dtype=np.uint8)
    theirs = codes.view(getattr(ml_dtypes, dtype)).astype(np.float32)
    np.testing.assert_array_equal(f.decode(codes), theirs)
    number = ~np.isnan(theirs)
    np.testing.assert_array_equal(np.signbit(f.decode(codes))[number], np.signbit(theirs)[number])


@pytest.mark.parametrize("name", INTEGERS)
def test_integer_decode(name):
    f = Format.parse(name)
    codes = np.arange(1 << f.bits, dtype=np.uint8)
    np.testing.assert_array_equal(f.decode(codes), codes.view(getattr(ml_dtypes, name)).astype(np.float32))


@pytest.mark.parametrize(("dtype", "name"), {**FP8, **SMALL}.items())
def test_encode(dtype, name):
    f = Format.parse(name)
    x = float32_probes(f)
    with np.errstate(invalid="ignore", over="ignore"):
        theirs = x.astype(getattr(ml_dtypes, dtype)).view(np.uint8)
    assert_codes(f, x, f.encode(x, overflow="saturate" if dtype in SMALL else "special"), theirs)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_encode_from_16_bits(dtype):
    """Every finite bfloat16 and float16 value, through the type's own numpy or torch array."""
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    x = bits.view(getattr(torch, dtype))
    x = x[torch.isfinite(x)]
    for their_dtype, name in FP8.items():
        f = Format.parse(name)
        wide = x.float().numpy()
        with np.errstate(invalid="ignore", over="ignore"):
            theirs = wide.astype(getattr(ml_dtypes, their_dtype)).view(np.uint8)
        assert_codes(f, wide, f.encode(x, overflow="special").numpy(), theirs)


def test_e8m0_encode():
    """Where both mean the same: not on ties, not for zero (NaN there), not for subnormal float32 (rounded up there)."""
    f = Format.parse("e8m0fnu")
    x = float32_probes(f)
    x = x[(x >= 2.0**-126) & np.isfinite(x)]
    tie = np.frexp(x)[0] == 0.75
    theirs = x.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8)
    assert_codes(f, x[~tie], f.encode(x[~tie], overflow="special"), theirs[~tie])
    ours = f.encode(x[tie])
    assert tie.sum() > 200 and (ours % 2 == 0).all() and (np.abs(ours.astype(int) - theirs[tie]) <= 1).all()


def test_nan_has_a_code_of_nan():
    for name in (*FP8.values(), *E8M0.values()):
        f = Format.parse(name)
        assert np.isnan(f.decode(f.encode(np.array([np.nan], np.float32)))).all()


@pytest.mark.parametrize("name", TORCH)
def test_torch_float8_in_range(name):
    f, dtype = Format.parse(name), getattr(torch, f"float8_{name}")
    x = torch.from_numpy(float32_probes(f))
    x = x[x.abs() <= f.max]
    assert_codes(f, x.numpy(), f.encode(x).numpy(), x.to(dtype).view(torch.uint8).numpy())
    codes = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(f.decode(codes), codes.view(dtype).float(), rtol=0, atol=0, equal_nan=True)


def test_torch_e8m0_powers_of_two():
    f = Format.parse("e8m0fnu")
    codes = torch.arange(256, dtype=torch.uint8)
    theirs = codes.view(torch.float8_e8m0fnu).float()
    torch.testing.assert_close(f.decode(codes), theirs, rtol=0, atol=0, equal_nan=True)
    assert torch.equal(f.encode(theirs[:255]), codes[:255])
