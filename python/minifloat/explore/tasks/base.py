"""The interface of a task, the built-in ones by name, and tasks of one's own from a Python file."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

# name -> module of this package and function in it; imported only when asked for, each has packages of its own.
BUILT_IN = {
    "mobilenet": ("mobilenet", "load"),
    "digits-cnn": ("digits", "load_cnn"),
    "numbers-vit": ("clutter", "load"),
    "smollm": ("smollm", "load"),
    "g2p": ("g2p", "load"),
    "minilm": ("minilm", "load"),
}


class TaskError(Exception):
    """A task is unknown, lacks a package or is given something it cannot use; the message says what would be right."""


@dataclass(frozen=True)
class Task:
    """A float model and how to judge a quantized copy of it.

    Attributes:
        name: as in `minifloat explore NAME`.
        model: float32, in eval mode; never changed by a sweep.
        calibration: batches for `mf.calibrate`; each is a tensor, or a dictionary of keyword arguments of the model.
        evaluate: figures of merit of a model with the interface of `model`, by name.
        metric: the one of these that the report draws.
        higher_is_better: of that metric.
        about: one line on the data, for the report.
        leave_out: patterns of layers that stay float, as tied ones do.
        timed: how much of the first calibration batch the layers are timed on; None: all of it.
    """

    name: str
    model: nn.Module
    calibration: list
    evaluate: Callable[[nn.Module], dict[str, float]]
    metric: str
    higher_is_better: bool
    about: str
    leave_out: tuple[str, ...] = ()
    timed: int | None = None


def task_names() -> list[str]:
    return list(BUILT_IN)


def load_task(name: str, samples: int | None = None) -> Task:
    """Load a task.

    Args:
        name: one of task_names(), or `path/to/file.py:function`; the function takes `samples` and returns a Task.
        samples: how much data to evaluate on, in the task's own unit (crops, images, tokens, words, paragraphs);
            None is what the task's published figures use.
    Raises:
        TaskError: unknown name, a missing package (with the command that installs it), or a function that is not one.
    """
    if samples is not None and samples < 1:
        raise TaskError(f"a task needs at least 1 sample, got {samples}")
    if name in BUILT_IN:
        module, function = BUILT_IN[name]
        return getattr(importlib.import_module(f".{module}", __package__), function)(samples)
    return _load_own(name, samples)


def _load_own(name: str, samples: int | None) -> Task:
    path, _, function = name.rpartition(":")
    if not path.endswith(".py") or not Path(path).is_file():
        raise TaskError(f"unknown task '{name}': there are {', '.join(BUILT_IN)}, or give path/to/file.py:function")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    load = getattr(module, function, None)
    if not callable(load):
        raise TaskError(f"{path} has no function '{function}'")
    task = load(samples)
    if not isinstance(task, Task):
        raise TaskError(f"{name} returned a {type(task).__name__}, expected a minifloat.explore.tasks.Task")
    return task
