"""Cells: the grid holds each point once, and a key says what was measured."""

from dataclasses import replace

import pytest

from minifloat.explore.cells import Cell, grid


def test_grid_is_the_product_with_float32_first():
    cells = grid("t", ["int4-row", "e2m1-g32-e8m0"], ["same", None, "int8-row"], ["nearest", "gptq"])
    assert cells[0] == Cell("t")
    assert len(cells) == len(set(cells)) == 1 + 2 * 3 * 2
    assert Cell("t", "int4-row", "int4-row", "gptq") in cells
    assert Cell("t", "e2m1-g32-e8m0", "e2m1-row") in cells  # "same": the format, with a scale a row


def test_spellings_of_one_cell_are_one_cell():
    cells = grid("t", ["mxfp4", "e2m1-g32-e8m0fnu"], ["int8-row"], ["nearest", "", "gptq", "gptq( )"])
    assert len(cells) == 1 + 2
    assert Cell("t", "mxfp4").key == Cell("t", "e2m1-g32-e8m0").key


def test_whatever_changes_the_result_changes_the_key():
    cell = Cell("t", "int4-row", "int8-row", "gptq", "int8-row", 100, 0)
    other = dict(task="u", weight="int5-row", activation=None, method="nearest", ends=None, samples=101, seed=1)
    keys = {cell.key, *(replace(cell, **{name: value}).key for name, value in other.items())}
    assert len(keys) == 1 + len(other)


def test_keys_do_not_depend_on_the_process():
    # Written out: a store must be found again by every later version that measures the same.
    assert Cell("digits-vit", "int4-row", "int4-row").key == "4c40021b2de6df4b"


@pytest.mark.parametrize(
    ("weights", "activations", "methods"),
    [("int9-row", "same", "gptq"), ("int4-row", "x", "gptq"), ("int4-row", "same", "gptk")],
)
def test_what_is_no_spec_or_recipe_is_refused(weights, activations, methods):
    with pytest.raises(ValueError, match="int9|'x'|gptk"):
        grid("t", [weights], [activations], [methods])
