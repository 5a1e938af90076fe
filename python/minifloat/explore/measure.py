"""One cell: quantize, evaluate, add up the costs."""

from __future__ import annotations

import math
import time
from functools import lru_cache

from .cells import Cell
from .costs import cost
from .quantized import quantized
from .tasks import Task, load_task


def measure(cell: Cell) -> dict:
    """The result of a cell, ready for JSON.

    Returns:
        metrics: figures of merit by name; None where one is not finite.
        metric, higher_is_better, about: the task's.
        quantize_time_s, evaluate_time_s: how long it took.
        and the costs of costs.cost.
    """
    task = task_of(cell)
    start = time.perf_counter()
    model = quantized(task, cell)
    quantized_at = time.perf_counter()
    costs = cost(model, _part(task.calibration[0], task.timed))
    costed_at = time.perf_counter()
    metrics = task.evaluate(model)
    evaluated_at = time.perf_counter()
    return {
        "metrics": {name: value if math.isfinite(value) else None for name, value in metrics.items()},
        "metric": task.metric,
        "higher_is_better": task.higher_is_better,
        "about": task.about,
        "quantize_time_s": quantized_at - start,
        "evaluate_time_s": evaluated_at - costed_at,
        **costs,
    }


def task_of(cell: Cell) -> Task:
    """The cell's task, kept for the next cell."""
    return _load(cell.task, cell.samples)


@lru_cache(maxsize=1)  # cells of one task come one after the other
def _load(name: str, samples: int | None) -> Task:
    return load_task(name, samples)


def _part(batch, rows: int | None):
    """The first rows of a batch, a tensor or a dictionary of tensors."""
    return {name: value[:rows] for name, value in batch.items()} if isinstance(batch, dict) else batch[:rows]
