"""Scales of binary-coded groups by alternating least squares.

Of a group of weights w[k] and scales alpha[i], sum_i alpha[i] * b[i, k] with b = -1 or +1 has 2**q values, the levels.
With the scales fixed, the best codes are those of the nearest level; with the codes fixed, the best scales solve a
system of q equations. Alternating between the two never raises the squared error. A group is sorted once, so that a
level holds a run of it and sums over runs come from cumulative sums: a round costs 2**q searches a group, however
large that is.

Source: Xu et al., "Alternating Multi-bit Quantization for Recurrent Neural Networks", section 3.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

RIDGE = 1e-12  # part of the diagonal that is added to it: where two planes are alike, the system is singular
SPANS = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4)  # of the largest magnitude, where uniform grids are tried to start with

Round = Callable[[torch.Tensor], torch.Tensor]  # scales, positive float64, to the nearest that can be stored


@dataclass(frozen=True)
class SortedGroups:
    """Groups of weights, each in ascending order, and the sums that runs of them have.

    Attributes:
        values: float64 (groups, G).
        weight, moment: float64 (groups, G + 1): sums of h and of h * w over the first j values, h the importance.
        energy: float64 (groups,): sum of h * w**2.
    """

    values: torch.Tensor
    weight: torch.Tensor
    moment: torch.Tensor
    energy: torch.Tensor

    @staticmethod
    def of(blocks: torch.Tensor, importance: torch.Tensor | None = None) -> SortedGroups:
        """blocks, importance: (groups, G)."""
        values, order = blocks.sort(-1)
        values = values.double()
        h = torch.ones_like(values)
        if importance is not None:
            h = importance.gather(-1, order).double()
            mean = h.mean(-1, keepdim=True)
            h = torch.where(mean > 0, h / mean, 1.0) + 1e-6  # an input that is always 0 still has a weight
        moment = h * values
        return SortedGroups(values, _cumulative(h), _cumulative(moment), (moment * values).sum(-1))

    def take(self, rows: torch.Tensor) -> SortedGroups:
        return SortedGroups(self.values[rows], self.weight[rows], self.moment[rows], self.energy[rows])

    @cached_property
    def importance(self) -> torch.Tensor:
        return self.weight.diff(dim=-1)


@dataclass(frozen=True)
class Runs:
    """The weights nearest to each level.

    weight, moment: float64 (groups, 2**q), by code: sums of h and of h * w. error: float64 (groups,), of h * error**2.
    """

    weight: torch.Tensor
    moment: torch.Tensor
    error: torch.Tensor

    def take(self, rows: torch.Tensor) -> Runs:
        return Runs(self.weight[rows], self.moment[rows], self.error[rows])


def signs(q: int, device=None) -> torch.Tensor:
    """float64 (2**q, q): the signs of the planes in each code, whose bit i is set where plane i is +1."""
    codes = torch.arange(1 << q, device=device)
    return ((codes[:, None] >> torch.arange(q, device=device)) & 1).double() * 2 - 1


def levels(alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of scales (groups, q): the levels, ascending, their codes, (groups, 2**q), and the midpoints between them."""
    sums, codes = (alpha @ signs(alpha.shape[1], alpha.device).T).sort(-1)
    return sums, codes, (sums[:, :-1] + sums[:, 1:]) / 2


def runs(groups: SortedGroups, alpha: torch.Tensor) -> Runs:
    """What is nearest to each level of these scales, float64 (groups, q)."""
    sums, codes, middles = levels(alpha)
    cuts = torch.searchsorted(groups.values, middles)
    last = torch.full_like(cuts[:, :1], groups.values.shape[1])
    cuts = torch.cat([torch.zeros_like(last), cuts, last], 1)
    weight, moment = (total.gather(1, cuts).diff(dim=-1) for total in (groups.weight, groups.moment))
    error = groups.energy + (sums * (weight * sums - 2 * moment)).sum(-1)
    by_code = [torch.zeros_like(total).scatter_(1, codes, total) for total in (weight, moment)]
    return Runs(*by_code, error)


def best_scales(groups: SortedGroups, q: int, iterations: int, rounded: Round) -> torch.Tensor:
    """float64 (groups, q): of the scales that can be stored, those with the least error that were found, descending.

    Found on the way from two starts: the greedy one, and the best of some uniform grids. A few more iterations never
    raise a group's error, and none at all leave it no larger than the greedy codes'.
    """
    found = [descend(groups, alpha, iterations, rounded) for alpha in (greedy(groups, q), uniform(groups, q))]
    alpha = torch.where((found[0][1] <= found[1][1])[:, None], found[0][0], found[1][0])
    return alpha.sort(-1, descending=True).values


def greedy(groups: SortedGroups, q: int) -> torch.Tensor:
    """float64 (groups, q): each the mean magnitude of what the planes before it leave."""
    rest, alpha = groups.values, []
    for _ in range(q):
        alpha.append((groups.importance * rest.abs()).sum(-1) / groups.weight[:, -1])
        rest = rest - torch.where(rest < 0, -1.0, 1.0) * alpha[-1][:, None]
    return torch.stack(alpha, 1)


def uniform(groups: SortedGroups, q: int) -> torch.Tensor:
    """float64 (groups, q): 2**i times a step, for the step with the least error of those tried."""
    top = torch.maximum(-groups.values[:, 0], groups.values[:, -1])
    powers = 2.0 ** torch.arange(q - 1, -1, -1, device=top.device, dtype=top.dtype)
    full = top[:, None] / ((1 << q) - 1) * powers
    errors = torch.stack([runs(groups, full * span).error for span in SPANS])
    return full * torch.tensor(SPANS, dtype=full.dtype, device=full.device)[errors.argmin(0)][:, None]


def descend(
    groups: SortedGroups, alpha: torch.Tensor, iterations: int, rounded: Round
) -> tuple[torch.Tensor, torch.Tensor]:
    """Scales that can be stored, (groups, q), and their errors: the best on the way of the iterations from alpha.

    The way itself is one of unrounded scales; a group is left where a round lowers its error no more.
    """
    best = rounded(alpha)
    least = runs(groups, best).error
    now = runs(groups, alpha)
    here = torch.arange(len(alpha), device=alpha.device)
    for _ in range(iterations):
        if not len(here):
            break
        matrix, vector = equations(now)
        stored, after = one_by_one(matrix, vector, rounded), runs(groups, solve(matrix, vector))
        error = runs(groups, stored).error
        better = error < least[here]
        best[here[better]], least[here[better]] = stored[better], error[better]
        going = after.error < now.error
        here, groups, now = here[going], groups.take(going), after.take(going)
    return best, least


def equations(found: Runs) -> tuple[torch.Tensor, torch.Tensor]:
    """The least squares problem of the scales for these codes: float64 (groups, q, q) and (groups, q)."""
    q = found.weight.shape[1].bit_length() - 1
    s = signs(q, found.weight.device)
    products = (s[:, :, None] * s[:, None]).flatten(1)
    matrix = (found.weight @ products).reshape(-1, q, q)
    matrix.diagonal(dim1=1, dim2=2).mul_(1 + RIDGE)
    return matrix, found.moment @ s


def solve(matrix: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """x of matrix x = vector, (groups, q, q) positive definite: elimination, a step for all groups at once."""
    q = vector.shape[1]
    a, b = list(matrix.unbind(1)), list(vector.unbind(1))
    for i in range(q):
        for j in range(i + 1, q):
            factor = a[j][:, i] / a[i][:, i]
            a[j] = a[j] - factor[:, None] * a[i]
            b[j] = b[j] - factor * b[i]
    x: list[torch.Tensor] = [b[0]] * q
    for i in reversed(range(q)):
        x[i] = (b[i] - sum(a[i][:, j] * x[j] for j in range(i + 1, q))) / a[i][:, i]
    return torch.stack(x, 1)


def one_by_one(matrix: torch.Tensor, vector: torch.Tensor, rounded: Round) -> torch.Tensor:
    """Scales that can be stored: each rounded in turn, with those after it made the best for those before it."""
    alpha = []
    for i in range(vector.shape[1]):
        first = solve(matrix[:, i:, i:], vector[:, i:])[:, 0]
        alpha.append(rounded(first.abs()))
        vector = vector - matrix[:, :, i] * (alpha[-1] * first.sign())[:, None]
    return torch.stack(alpha, 1)


def _cumulative(x: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.pad(x.cumsum(-1), (1, 0))
