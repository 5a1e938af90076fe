"""The integer programme against brute force, and what it says where there is no solution."""

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("scipy", reason="scipy is not installed")
from minifloat.ptq.budget import BudgetError, solve, total_cost

VALUE = st.integers(0, 50).map(lambda n: n / 8)


@st.composite
def problems(draw):
    sizes = draw(st.lists(st.integers(1, 4), min_size=1, max_size=5))
    losses = [draw(st.lists(VALUE, min_size=n, max_size=n)) for n in sizes]
    costs = {
        name: [draw(st.lists(VALUE, min_size=n, max_size=n)) for n in sizes]
        for name in ("bits", "luts")[: draw(st.integers(1, 2))]
    }
    return losses, costs, {name: draw(st.integers(0, 100)) / 4 for name in costs}


def brute_force(losses, costs, budget):
    """The least loss of all choices within the budget, None if there is none."""
    every = itertools.product(*(range(len(row)) for row in losses))
    within = [c for c in every if all(total_cost(costs[name], c) <= budget[name] for name in budget)]
    return min((total_cost(losses, c) for c in within), default=None)


@given(problems())
def test_equals_brute_force(problem):
    losses, costs, budget = problem
    best = brute_force(*problem)
    if best is None:
        with pytest.raises(BudgetError, match="smallest possible"):
            solve(*problem)
        return
    chosen = solve(losses, costs, budget)
    assert total_cost(losses, chosen) == best
    assert all(total_cost(costs[name], chosen) <= budget[name] for name in budget)


def test_the_smallest_possible_budget_of_the_message_can_be_met():
    losses, costs = [[3.0, 1.0], [4.0, 0.5]], {"bytes": [[100.5, 200.0], [300.0, 400.0]]}
    with pytest.raises(BudgetError, match="400 bytes cannot be met: the smallest possible is 400.5") as error:
        solve(losses, costs, {"bytes": 400})
    least = float(re.search(r"possible is ([\d.]+)", str(error.value))[1])
    assert solve(losses, costs, {"bytes": least}) == [0, 0]


def test_two_budgets_that_only_clash_together():
    losses = [[0.0, 1.0]]
    costs = {"bytes": [[1.0, 9.0]], "luts": [[9.0, 1.0]]}
    with pytest.raises(BudgetError, match="cannot be met together.*1 bytes, 1 luts"):
        solve(losses, costs, {"bytes": 2, "luts": 2})


def test_bad_input():
    with pytest.raises(ValueError, match="loss of layer 0"):
        solve([[float("nan")]], {"bits": [[1.0]]}, {"bits": 1})
    with pytest.raises(ValueError, match="as many entries"):
        solve([[1.0, 2.0]], {"bits": [[1.0]]}, {"bits": 1})
    with pytest.raises(ValueError, match="budget for each cost"):
        solve([[1.0]], {"bits": [[1.0]]}, {"bytes": 1})
