"""The grammar of QuantSpec: presets, parts in any order, one spelling each, and what is refused."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifloat import QuantSpec
from minifloat.formats import PRESETS, SCALE_FORMATS

FORMATS = ["e2m1", "e4m3fn", "e3m2b-2", "int4", "uint8", "nf4", "binary"]
SCALES = ["", "f32", "float32", "bf16", "bfloat16", "e8m0", "e8m0fnu", "e4m3fn"]
FULL = {"": "float32", "f32": "float32", "bf16": "bfloat16", "e8m0": "e8m0fnu"}


@given(
    st.sampled_from(FORMATS),
    st.sampled_from(["tensor", "row"]) | st.integers(1, 1 << 20).map(lambda g: f"g{g}"),
    st.sampled_from(SCALES),
    st.booleans(),
    st.sampled_from(["", "absmax", "mse"]),
    st.randoms(use_true_random=False),
)
def test_parts_come_in_any_order(name, granularity, scale, zero_point, rule, random):
    parts = [p for p in (granularity, scale, "zp" if zero_point else "", rule) if p]
    random.shuffle(parts)
    text = "-".join([name, *parts])
    full = FULL.get(scale, scale)
    if zero_point and ("int" not in name or full in ("e8m0fnu", "e4m3fn")):
        with pytest.raises(ValueError, match="a zero point"):
            QuantSpec.parse(text)
        return
    spec = QuantSpec.parse(text)
    assert (str(spec.format), spec.scale_format, spec.zero_point) == (name, full, zero_point)
    assert (spec.granularity, spec.group_size) == (
        ("group", int(granularity[1:])) if granularity[0] == "g" else (granularity, None)
    )
    assert spec.scale_rule == (rule or "absmax")
    assert QuantSpec.parse(str(spec)) == spec and str(QuantSpec.parse(str(spec))) == str(spec)


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("e2m1-g32-e8m0fnu", "e2m1-g32-e8m0"),
        ("int8-float32-row", "int8-row"),
        ("uint4-zp-bfloat16-g32", "uint4-g32-bf16-zp"),
        ("e5m2ieee-tensor", "e5m2-tensor"),
        ("e2m1b-2-row", "e2m1b-2-row"),
        ("int4-g128-absmax", "int4-g128"),
        ("mxfp4-mse", "e2m1-g32-e8m0-mse"),
        ("nf4-mse", "nf4-g64-mse"),
        ("nf4-g32", "nf4-g32"),
        ("nf4-row", "nf4-row"),
    ],
)
def test_one_spelling_each(text, canonical):
    assert str(QuantSpec.parse(text)) == canonical
    assert QuantSpec.parse(QuantSpec.parse(text)) is not None and QuantSpec.parse(canonical) == QuantSpec.parse(text)


def test_presets():
    """OCP MX: groups of 32 with e8m0 scales; NVFP4: groups of 16 with e4m3fn scales; NF4: groups of 64."""
    mx = {"mxfp4": "e2m1", "mxfp6-e2m3": "e2m3", "mxfp6-e3m2": "e3m2", "mxfp8-e4m3": "e4m3fn", "mxfp8-e5m2": "e5m2"}
    expected = {name: (f, 32, "e8m0fnu") for name, f in mx.items()} | {
        "mxint8": ("int8", 32, "e8m0fnu"),
        "nvfp4": ("e2m1", 16, "e4m3fn"),
        "nf4": ("nf4", 64, "float32"),
    }
    assert set(PRESETS) == set(expected)
    for name, (element, group, scale) in expected.items():
        spec = QuantSpec.parse(name)
        assert (str(spec.format), spec.group_size, spec.scale_format) == (element, group, scale)
        assert not spec.zero_point and spec.scale_rule == "absmax"
        assert str(spec) == PRESETS[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("int8", r"'int8' does not say where scales live: add '-tensor', '-row' or '-g32'"),
        ("e4m3-row", "'e4m3' is read differently by different standards"),
        ("e4m3", "'e4m3' is read differently by different standards"),
        ("quux-row", "unknown format 'quux'"),
        ("", "unknown format ''"),
        ("int8-row-tensor", "'int8-row-tensor' sets granularity twice"),
        ("int4-g32-g64", "'int4-g32-g64' sets group_size twice"),
        ("int4-g32-e8m0-bf16", "sets scale_format twice"),
        ("int4-g0", "group size 0 must be between 1 and 1048576"),
        ("int4-g1048577", "group size 1048577 must be between"),
        (
            "e2m1-g32-e8m1",
            "'e8m1' in 'e2m1-g32-e8m1' is not a part of a spec: expected 'tensor', 'row', 'g32', a scale",
        ),
        ("e2m1--row", "'' in 'e2m1--row' is not a part of a spec"),
        ("e2m1-row-", "'' in 'e2m1-row-' is not a part of a spec"),
        ("e2m1-g32-zp", "a zero point needs an integer format, and e2m1 is none"),
        ("nf4-g32-zp", "a zero point needs an integer format"),
        ("mxint8-zp", "a zero point does not go with e8m0fnu scales: use float32 or bfloat16"),
        ("int4-g16-e4m3fn-zp", "a zero point does not go with e4m3fn scales"),
        ("mxfp6", r"'mxfp6' is no preset: use 'mxfp6-e2m3' \(e2m3-g32-e8m0\) or 'mxfp6-e3m2'"),
        ("nvfp4-g32", r"'nvfp4-g32' is no preset: use 'nvfp4' \(e2m1-g16-e4m3fn\)"),
        ("mxfp4-bf16", "'mxfp4-bf16' is no preset"),
        (32, "a quantization spec is a string such as 'e2m1-g32-e8m0', got int"),
    ],
)
def test_bad_specs(text, message):
    with pytest.raises(ValueError, match=message):
        QuantSpec.parse(text)


@given(st.lists(st.sampled_from([*FORMATS, *PRESETS, "row", "g32", "g", "zp", "mse", "e8m0", "", "-1"]), max_size=5))
def test_any_text_parses_or_raises_value_error(parts):
    try:
        spec = QuantSpec.parse("-".join(parts))
    except ValueError:
        return
    assert QuantSpec.parse(str(spec)) == spec


def test_fields_are_checked_without_parsing():
    f = QuantSpec.parse("int4-row").format
    for fields, message in (
        ({"granularity": "column"}, "granularity 'column' must be 'tensor', 'row' or 'group'"),
        ({"granularity": "group"}, "'group' does not go with group_size=None"),
        ({"granularity": "row", "group_size": 32}, "'row' does not go with group_size=32"),
        ({"granularity": "row", "scale_format": "e5m2"}, "scale format 'e5m2' must be one of float32, bfloat16"),
        ({"granularity": "row", "scale_rule": "best"}, "scale rule 'best' must be one of absmax, mse"),
    ):
        with pytest.raises(ValueError, match=message):
            QuantSpec(f, **fields)


def test_groups():
    spec = QuantSpec.parse("int4-g32")
    assert [spec.groups(k) for k in (0, 32, 64, 4096)] == [0, 1, 2, 128]
    assert QuantSpec.parse("int4-row").groups(37) == 1 == QuantSpec.parse("int4-tensor").groups(37)
    with pytest.raises(ValueError, match="K=100 is not a multiple of the group size 32; pad x and w to 128"):
        spec.groups(100)
    for k in (1, 31):
        with pytest.raises(ValueError, match=f"K={k} is smaller than the group size 32; use '-row' or a smaller group"):
            spec.groups(k)


def test_scale_bits():
    widths = {"float32": 32, "bfloat16": 16, "e8m0fnu": 8, "e4m3fn": 8}
    assert {s: QuantSpec.parse(f"int4-g32-{s}").scale_bits for s in SCALE_FORMATS} == widths


def test_specs_hash_by_value():
    specs = {QuantSpec.parse(t) for t in itertools.chain(PRESETS, PRESETS.values())}
    assert len(specs) == len(PRESETS)
