"""Coordinate descent on codes: each move is the best one, and no row gets worse."""

import pytest
import torch

import minifloat as mf
from minifloat.ptq.descend import best_rows, descend
from minifloat.ptq.errors import gram_of, row_errors
from minifloat.ptq.neighbours import grid_of, with_codes
from ptq.layer_data import correlated

SPECS = ["int4-row", "uint3-g32-zp", "e2m1-g32-e8m0", "e3m2-row", "nvfp4", "nf4-g32", "e5m2-tensor", "binary-row"]


@pytest.mark.parametrize("spec", SPECS)
def test_no_row_gets_worse_and_the_whole_gets_better(spec):
    w, _, gram = correlated()
    q = mf.quantize(w, spec)
    before, after = row_errors(w, q, gram), row_errors(w, descend(w, q, gram), gram)
    assert (after <= before).all()
    assert after.sum() < 0.8 * before.sum()


@pytest.mark.parametrize("spec", ["int3-row", "e2m1-row", "nf4-row"])
def test_where_it_ends_no_single_code_can_be_improved(spec):
    w, _, gram = correlated(n=3, k=12)
    q = descend(w, mf.quantize(w, spec), gram, sweeps=50)
    best = row_errors(w, q, gram)
    for k in range(12):
        for code in grid_of(q.spec.format)[1]:
            codes = q.codes.clone()
            codes[:, k] = code
            assert (row_errors(w, with_codes(q, codes), gram) >= best * (1 - 1e-6)).all()


def test_best_rows_takes_each_row_from_the_better_candidate():
    w, _, gram = correlated(n=6, k=32)
    a = mf.quantize(w, "int3-row")
    codes = a.codes.clone()
    codes[::2] = 0
    mixed = best_rows(w, gram, with_codes(a, codes), a)
    assert torch.equal(mixed.codes, a.codes)


def test_a_gram_needs_finite_rows():
    with pytest.raises(ValueError, match="no rows"):
        gram_of(torch.zeros(0, 4))
    with pytest.raises(ValueError, match="NaN or infinity"):
        gram_of(torch.full((2, 4), float("nan")))
