"""A cell of the map: everything that decides a result, and the key under which the result is kept."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from ..formats import QuantSpec
from ..ptq import Recipe

VERSION = 1  # raised when the same cell would measure something else, so that old results are not taken for new ones


@dataclass(frozen=True)
class Cell:
    """One point to measure.

    Attributes:
        task: a built-in name or path/to/file.py:function.
        weight, activation: specs in canonical form; activation None leaves x in float, weight None the whole model.
        method: the text of a recipe for `mf.calibrate`, "nearest" for the empty one.
        ends: spec of the weights and activations of the first and the last layer; None: the same as everywhere.
        samples: how much data to evaluate on; None: the task's own choice.
        seed: for methods that draw random numbers.
    """

    task: str
    weight: str | None = None
    activation: str | None = None
    method: str = "nearest"
    ends: str | None = None
    samples: int | None = None
    seed: int = 0

    def __post_init__(self):
        for name in ("weight", "activation", "ends"):
            spec = getattr(self, name)
            object.__setattr__(self, name, None if spec is None else str(QuantSpec.parse(spec)))

    @property
    def key(self) -> str:
        """16 hexadecimal digits: equal for equal cells, on every machine."""
        text = json.dumps(asdict(self) | {"version": VERSION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def __str__(self) -> str:
        if self.weight is None:
            return f"{self.task} float32"
        return f"{self.task} {self.weight} x {self.activation or 'float32'}, {self.method}"


def grid(
    task: str,
    weights: Iterable[str],
    activations: Iterable[str | None],
    methods: Iterable[str],
    ends: str | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> list[Cell]:
    """The float32 model, then every weight spec with every activation spec and every method, each cell once.

    Args:
        activations: specs, None for float32, or "same": the weight's own element format with one scale a row.
        methods: recipes as text; "nearest" rounds to nearest.
    Raises:
        ValueError: a spec or a recipe is not one.
    """
    cells = {Cell(task, samples=samples): None}  # an ordered set
    methods = [str(Recipe.parse(method)) for method in methods]
    for weight, activation, method in itertools.product(weights, activations, methods):
        if activation == "same":
            activation = f"{QuantSpec.parse(weight).format}-row"
        cells[Cell(task, weight, activation, method, ends, samples, seed)] = None
    return list(cells)
