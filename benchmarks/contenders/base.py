"""The interface of a contender."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable

import torch

from ..timing import Work


class Skipped(Exception):
    """This contender cannot run here; the message says why and is shown."""


class Contender(ABC):
    """One way to compute y = x @ w.T for float32 x (M, K), with weights in its own format.

    Attributes:
        name: library and format, unique within a run.
        width: nominal bits of a weight, without scales: contenders of one width are compared.
        arithmetic: 'int8', 'float32' or 'other': which instruction ceiling applies.
        weight_bytes: of one copy as the kernel reads it, scales included; known after build.
    """

    name: str
    width: int
    arithmetic: str = "int8"
    library: str = ""
    weight_bytes: int = 0

    @abstractmethod
    def build(self, w: torch.Tensor, target_bytes: int, threads: int) -> None:
        """Quantize and pack w (N, K), in enough copies to fill target_bytes.

        Raises:
            Skipped: not installed, or it does not take this shape.
        """

    @abstractmethod
    def work(self, x: torch.Tensor) -> Work:
        """Calls of the layer on x, over all copies in turn."""

    @abstractmethod
    def output(self, x: torch.Tensor) -> torch.Tensor | None:
        """float32 (M, N): what the first copy gives for x, to check that the right thing is timed; None: nothing is."""

    def release(self) -> None:
        """Drop the copies."""
        keep = {"name", "width", "arithmetic", "library", "weight_bytes", "spec", "activation"}
        for attribute in [a for a in vars(self) if a not in keep and not a.startswith("_")]:
            delattr(self, attribute)


def copy_count(target_bytes: int, one_bytes: int) -> int:
    """Enough copies to fill target_bytes, two at least."""
    return max(2, math.ceil(target_bytes / max(one_bytes, 1)))


def rotate(call: Callable[[object], object], copies: list) -> Work:
    """Calls `call` with the next copy each time."""
    following = itertools.cycle(copies).__next__
    return Work(lambda: call(following()))
