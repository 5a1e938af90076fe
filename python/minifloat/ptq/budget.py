"""The integer programme of mixed precision: one candidate for each layer, the least loss within a budget.

Source: Yao et al., "HAWQ-V3: Dyadic Neural Network Quantization", 2021, with the solver HiGHS as
scipy.optimize.milp offers it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

TOLERANCE = 1e-6  # HiGHS's, on constraints scaled to about 1


class BudgetError(ValueError):
    """No choice meets the budget."""


def solve(
    losses: Sequence[Sequence[float]], costs: Mapping[str, Sequence[Sequence[float]]], budget: Mapping
) -> list[int]:
    """The candidate of each layer, so that the sum of losses is least and no sum of costs exceeds its budget.

    Args:
        losses: for each layer, of each of its candidates; layers may have different numbers of them.
        costs: what is limited -> shaped as losses.
        budget: what is limited -> the largest sum allowed; the same keys as costs.
    Returns:
        For each layer the index of its candidate.
    Raises:
        BudgetError: there is none; the message states the smallest sum possible.
        ValueError: a loss or cost is not finite or negative, or shapes or keys differ.
        ImportError: scipy is not installed.
    """
    _check(losses, costs, budget)
    # The solver may overstep a limit by its tolerance: then once more, with limits lowered by as much.
    for margin in (0.0, 2 * TOLERANCE):
        chosen = _solve(losses, costs, budget, margin)
        if chosen is None:
            raise BudgetError(_why_not(costs, budget))
        if all(total_cost(costs[name], chosen) <= limit for name, limit in budget.items()):
            return chosen
    raise BudgetError(_why_not(costs, budget))


def _solve(losses, costs, budget, margin: float) -> list[int] | None:
    """The solver's choice, None if there is none. margin: lowers each limit, relative to its largest cost or itself."""
    optimize = _scipy()
    sizes = [len(row) for row in losses]
    flat = np.concatenate([np.asarray(row, float) for row in losses])
    one_each = np.zeros((len(sizes), len(flat)))
    for i, end in enumerate(np.cumsum(sizes)):
        one_each[i, end - sizes[i] : end] = 1
    constraints = [optimize.LinearConstraint(one_each, 1, 1)]
    for name, limit in budget.items():
        row = np.concatenate([np.asarray(r, float) for r in costs[name]])
        unit = max(limit, row.max()) or 1.0  # the solver's tolerances are absolute
        constraints.append(optimize.LinearConstraint(row[None] / unit, -np.inf, limit / unit - margin))
    largest = flat.max() or 1.0
    found = optimize.milp(
        flat / largest,
        integrality=np.ones(len(flat)),
        bounds=optimize.Bounds(0, 1),
        constraints=constraints,
        options={"mip_rel_gap": 0},
    )
    if found.x is None:
        return None
    return [int(part.argmax()) for part in np.split(found.x, np.cumsum(sizes)[:-1])]


def total_cost(costs: Sequence[Sequence[float]], chosen: Sequence[int]) -> float:
    """What a choice adds up to."""
    return float(sum(row[i] for row, i in zip(costs, chosen, strict=True)))


def _why_not(costs: Mapping, budget: Mapping) -> str:
    for name, limit in budget.items():
        least = sum(min(row) for row in costs[name])
        if least > limit:
            return f"a budget of {limit:.6g} {name} cannot be met: the smallest possible is {least:.6g}"
    shown = ", ".join(f"{limit:.6g} {name}" for name, limit in budget.items())
    least = ", ".join(f"{sum(min(row) for row in costs[name]):.6g} {name}" for name in budget)
    return f"budgets of {shown} cannot be met together; the smallest possible, each on its own, is {least}"


def _check(losses, costs, budget) -> None:
    if not losses or not budget or set(costs) != set(budget):
        raise ValueError(f"mixed precision needs layers and a budget for each cost: {sorted(costs)}, {sorted(budget)}")
    sizes = [len(row) for row in losses]
    for name, rows in (("loss", losses), *costs.items()):
        if [len(row) for row in rows] != sizes or not all(sizes):
            raise ValueError(f"{name} needs as many entries for each layer as there are candidates: {sizes}")
        for i, row in enumerate(rows):
            if not np.isfinite(row).all() or min(row) < 0:
                raise ValueError(f"{name} of layer {i} is {list(row)}: all must be finite and not negative")


def _scipy():
    try:
        from scipy import optimize
    except ImportError as error:
        raise ImportError("mixed precision needs scipy: pip install 'minifloat[ptq]'") from error
    return optimize
