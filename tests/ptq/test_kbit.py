"""Block-wise data types of k bits, and the choice among them."""

import numpy as np
import pytest
import torch

import minifloat as mf
from minifloat.formats.codebooks import NF4
from minifloat.ptq import calibrate
from minifloat.ptq.kbit import TYPES, choose_type, data_type, dynamic, normal, normal_values, quantile_values, quantiles
from ptq.layer_data import spread, two_kinds

SPEC = mf.QuantSpec.parse("int4-g32")


def test_tables_agree_with_the_published_ones():
    assert dynamic(8) == mf.Format.parse("dynamic8")
    assert torch.tensor(normal_values(4)).sub(torch.tensor(NF4)).abs().max() < 1e-6
    assert normal(4) == mf.Format.parse("nf4")


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("kind", TYPES)
def test_types_have_every_code_zero_and_both_signs(kind, bits):
    f = data_type(kind, bits, spread("normal"), SPEC)
    assert f.bits == bits
    values = f.values[f.is_number]
    assert 0 in values and values.min() < 0 < values.max()
    if kind in ("quantile", "normal"):
        assert (values.min(), values.max()) == (-1, 1)
        assert len(set(values)) == 2**bits


@pytest.mark.parametrize("bits", [3, 4, 6])
def test_quantiles_stand_for_parts_of_equal_number(bits):
    x = spread("uniform", 256, 256).flatten().double().numpy()
    values = quantile_values(x, bits)
    counts, _ = np.histogram(x, [-np.inf, *((values[:-1] + values[1:]) / 2), np.inf])
    assert len(values) == 2**bits
    assert counts[1:-1] == pytest.approx(len(x) / (2**bits + 2), rel=0.1)


def test_quantiles_follow_the_data():
    flat = spread("uniform")
    clusters = 0.5 * flat.sign() + 0.1 * flat
    for w in (flat, clusters):
        errors = {kind: choose_type(w, "int4-row", types=[kind]).error for kind in TYPES}
        assert errors["quantile"] == min(errors.values())


def test_the_largest_of_each_block_is_exact_with_quantiles():
    w = spread("normal")
    f = quantiles(w, 4, SPEC)
    q = mf.quantize(w, f"{f.name}-g32")
    blocks, rounded = w.reshape(-1, 32), q.dequantize().reshape(-1, 32)
    largest = blocks.abs().argmax(1, keepdim=True)
    torch.testing.assert_close(rounded.gather(1, largest), blocks.gather(1, largest))


def test_tables_of_unlike_data_have_unlike_names():
    a, b = (quantiles(spread(kind), 4, SPEC) for kind in ("normal", "student"))
    assert a.name != b.name
    assert quantiles(spread("normal"), 4, SPEC) == a
    assert quantiles(torch.zeros(4, 32), 4, SPEC).values.max() == 1


@pytest.mark.parametrize("block", [32, 64, 128, 256, 512, 1024])
def test_no_type_has_a_smaller_error(block):
    w = spread("normal", 8, 1024)
    found = choose_type(w, "int4-row", block=block)
    assert found.spec.group_size == block
    assert found.q.nbytes == 8 * 512 + 8 * (1024 // block) * 4
    for kind in TYPES:
        f = data_type(kind, 4, w, found.spec)
        q = mf.quantize(w, f"{f.name}-g{block}")
        assert (q.dequantize() - w).double().square().sum().item() >= found.error * (1 - 1e-6)
    assert len(found.errors) == len(TYPES)


def test_smaller_blocks_have_smaller_errors_and_take_more_bytes():
    w = spread("student", 8, 1024)
    found = [choose_type(w, "int4-row", types=["float"], block=b) for b in (32, 128, 512)]
    assert found[0].error < found[1].error < found[2].error
    assert found[0].q.nbytes > found[1].q.nbytes > found[2].q.nbytes


def test_bad_settings():
    with pytest.raises(ValueError, match="unknown data type 'posit'"):
        choose_type(spread("normal"), "int4-g32", types=["posit"])
    with pytest.raises(ValueError, match="3 to 8 bits, got 2"):
        choose_type(spread("normal"), "int2-g32", types=["dynamic"])
    with pytest.raises(ValueError, match="not a multiple of the group size 48"):
        choose_type(spread("normal"), "int4-row", block=48)


def test_the_step_and_a_saved_file(tmp_path):
    model, batches = two_kinds()
    found = calibrate(model, batches, "kbit(block=16, types=['quantile'])", "int4-row")
    assert found.uniform.spec.format.name.startswith("quantile4_")
    assert found.uniform.spec.format != found.heavy.spec.format
    mf.save(found, tmp_path / "model.safetensors")
    x = torch.cat(batches)
    loaded = mf.load(two_kinds()[0], tmp_path / "model.safetensors")
    assert torch.equal(loaded(x), found(x))
    with pytest.raises(ValueError, match="kbit: layer 'uniform'.*K=64 is not a multiple of the group size 48"):
        calibrate(model, batches, "kbit(block=48)", "int4-row")
