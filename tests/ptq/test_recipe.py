"""Recipes: text and JSON forms round-trip, and mistakes are named."""

import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import minifloat as mf
from minifloat.ptq import Recipe, register
from minifloat.ptq.gptq import GPTQ
from minifloat.ptq.recipe import STEPS, Step
from minifloat.ptq.scales import FindScales
from ptq.nets import net, vectors


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", ()),
        ("nearest", ()),
        ("gptq", (GPTQ(),)),
        ("gptq(act_order=True, block=64)", (GPTQ(act_order=True, block=64),)),
        ("scales(rule=mse)+gptq", (FindScales("mse"), GPTQ())),
        ("scales(rule='percentile', percentile=99) + gptq()", (FindScales("percentile", 99), GPTQ())),
    ],
)
def test_reads_text(text, steps):
    recipe = Recipe.parse(text)
    assert recipe.steps == steps
    assert Recipe.parse(str(recipe)) == recipe
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_text_tells_only_what_is_not_default():
    assert str(Recipe.parse("gptq(act_order=True, block=128)")) == "gptq(act_order=True)"
    assert str(Recipe()) == "nearest"


NAMES = ["bias_correction", "equalize", "fold_batch_norm", "gptq", "input_ranges", "scales", "shift_inputs"]
NAMES += ["smoothquant"]


@pytest.mark.parametrize("name", NAMES)
def test_steps_round_trip(name):
    recipe = Recipe.parse(name)
    assert Recipe.from_json(recipe.to_json()) == recipe == Recipe.parse(str(recipe))
    step = type(recipe.steps[0])
    assert "Source" in step.__doc__ + sys.modules[step.__module__].__doc__


def test_recipes_add_up_and_nest():
    a, b = Recipe.parse("scales"), Recipe.parse("gptq")
    assert a + b == Recipe.parse("scales + gptq") == Recipe.parse([a, "gptq"]) == Recipe.parse((FindScales(), b))
    assert a + GPTQ() == a + b


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gtpq", "unknown step 'gtpq': did you mean 'gptq'"),
        ("gptq(blocks=3)", "step 'gptq' has no setting 'blocks'; it has block, act_order, damp"),
        ("gptq(block='a')", "block is 'a', expected a int such as 128"),
        ("gptq(block=True)", "block is True, expected a int"),
        ("gptq(act_order=1)", "act_order is 1, expected a bool"),
        ("gptq(block=0)", "block=0 must be at least 1"),
        ("gptq(3)", r"'gptq\(3\)' is no step"),
        ("gptq +", "cannot be read"),
        ("gptq * gptq", "is no step; write"),
        ("scales(rule=middle)", "scale rule 'middle' must be one of absmax, percentile, mse"),
        ("scales(rule=a-b)", "'a - b' is no value; quote"),
        (3, "a recipe is text, a step or a list of steps, got int"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        Recipe.parse(text)


@pytest.mark.parametrize("text", ["{", "3", '[{"name": "gptq"}]', "[3]"])
def test_bad_json(text):
    with pytest.raises(ValueError, match="expected JSON such as"):
        Recipe.from_json(text)


def test_other_files_add_steps_by_name():
    @register
    @dataclass(frozen=True)
    class Noted(Step):
        """Source: none."""

        name = "noted_by_a_test"
        word: str = "x"

        def apply(self, run):
            seen.append((self.word, [layer.name for layer in run.layers]))

    seen = []
    try:
        mf.calibrate(net(), vectors(), "noted_by_a_test(word=y)", "int8-row")
        assert seen == [("y", ["stem", "blocks.0.up", "blocks.0.down", "blocks.1.up", "blocks.1.down", "head"])]
        with pytest.raises(ValueError, match="the name 'gptq' is taken by GPTQ"):
            register(type("Other", (Noted,), {"name": "gptq"}))
    finally:
        del STEPS["noted_by_a_test"]


def test_the_step_in_the_documentation_works():
    text = (Path(__file__).parents[2] / "docs" / "ptq.md").read_text()
    example = text.split("## A step of your own")[1].split("```python")[1].split("```")[0]
    try:
        exec(example, {})
        batches = vectors()
        q = mf.calibrate(net(), batches, "flip(part=0.25)", "int4-row")
        assert torch.equal(q(batches[0]), mf.calibrate(net(), batches, "", "int4-row")(batches[0]))
    finally:
        STEPS.pop("flip", None)
