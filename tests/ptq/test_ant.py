"""ANT: the data type of each tensor with the least error."""

import pytest
import torch

import minifloat as mf
from minifloat.ptq import ScaleRule, calibrate
from minifloat.ptq.ant import choose_type, flint, primitives
from ptq.layer_data import spread, two_kinds


@pytest.mark.parametrize("bits", range(3, 9))
@pytest.mark.parametrize("kind", ["uniform", "normal", "student"])
def test_no_primitive_has_a_smaller_error(kind, bits):
    w = spread(kind)
    found = choose_type(w, f"int{bits}-row", rule=ScaleRule("absmax"))
    errors = {}
    for f in primitives(bits):
        q = mf.quantize(w, mf.QuantSpec(f, "row"))
        errors[str(q.spec)] = (q.dequantize() - w).double().square().sum().item()
    assert found.errors == pytest.approx(errors)
    assert found.error == min(found.errors.values())
    assert str(found.spec) in errors


def test_the_primitives_are_those_of_the_source():
    assert [f.name for f in primitives(4)] == ["int4", "flint4", "e3m0", "e2m1"]
    assert [f.name for f in primitives(4, signed=False)] == ["uint4", "uflint4", "ue4m0", "ue2m2"]
    assert [f.name for f in primitives(3)] == ["int3", "flint3", "e2m0"]
    powers = torch.tensor(mf.Format.parse("e3m0").values)
    assert sorted(powers.abs().log2()[powers != 0].unique().tolist()) == [-2, -1, 0, 1, 2, 3, 4]


def test_flint_of_any_width():
    assert flint(4) == mf.Format.parse("flint4")
    assert sorted(flint(3).values.tolist()) == [-4, -2, -1, 0, 0, 1, 2, 4]
    for bits in range(3, 9):
        values = sorted(set(flint(bits, signed=False).values.tolist()))
        assert len(values) == 2**bits
        assert values[: 2 ** (bits - 1)] == list(range(2 ** (bits - 1)))  # an integer near zero
        assert values[-1] == 4.0 ** (bits - 1)
    with pytest.raises(ValueError, match="3 to 8 bits, got 2"):
        flint(2)


def test_tails_decide():
    assert choose_type(spread("uniform"), "e2m1-row").spec.format.name == "int4"
    assert choose_type(spread("student"), "int4-row").spec.format.name == "e2m1"
    assert choose_type(spread("student"), "int4-tensor").spec.format.name == "e3m0"
    # Many near zero and few far out, at integer places: what flint is for.
    values = torch.tensor([0.0, 1, 2, 3, 4, 6, 8, 16]).repeat_interleave(torch.tensor([40, 40, 40, 40, 5, 3, 2, 1]))
    assert choose_type(values.reshape(9, 19), "int4-tensor").spec.format.name == "flint4"


def test_the_step_chooses_weight_and_activation():
    model, batches = two_kinds()
    found = calibrate(model, batches, "ant", "int4-row", "int4-row")
    assert str(found.uniform.spec) == "int4-row"
    assert found.heavy.spec.format.name != "int4"
    before = calibrate(model, batches, "", "int4-row", "int4-row")
    x = torch.cat(batches)
    assert ((found(x) - model(x)) ** 2).mean() < ((before(x) - model(x)) ** 2).mean()
