"""Interleaved timing, and what is kept of the samples.

pytest-benchmark measures one function to the end before it starts the next. On a machine whose clock, memory traffic
and neighbours change within seconds, the ratio of two such figures is mostly noise; so here every round gives each
contender one block of calls, and a ratio compares figures from the same seconds.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

BLOCK_US = (
    1000.0  # a block of calls lasts about this long: enough for the clock, short enough to fall between neighbours
)
PAUSE_S = 0.001  # before a block: idle OpenMP threads of the contender before go to sleep


@dataclass
class Work:
    """What is timed: `run` makes `calls` calls of the layer; its idle threads then spin for `spin_s`."""

    run: Callable[[], object]
    calls: int = 1
    spin_s: float = PAUSE_S


def calibrate(work: Work, clock=time.perf_counter) -> int:
    """How often to run `work` in one block."""
    work.run()  # first call: allocations, page faults, thread start
    took_us = math.inf
    for _ in range(3):  # a neighbour may hold the core once
        start = clock()
        work.run()
        took_us = min(took_us, (clock() - start) * 1e6)
        if took_us > BLOCK_US:
            break
    return max(1, math.ceil(BLOCK_US / max(took_us, 0.1)))


def touch(work: Work, copies: int) -> None:
    """Call every copy once: what had lain idle since it was packed was seen to take 5 ms in place of 0.3, once."""
    for _ in range(math.ceil(copies / work.calls)):
        work.run()


def measure(
    works: dict[str, Work],
    seconds: float,
    min_rounds: int = 5,
    max_rounds: int = 40,
    clock=time.perf_counter,
    sleep=time.sleep,
) -> dict[str, list[float]]:
    """Time per call in us, one sample a round, for every contender in turn.

    Every round has an order of its own, the same in every run, so that nobody always follows the same neighbour.
    Between two contenders the threads of the first go to sleep; where both have the same spinning pool, later, which is
    why those whose threads spin for long come last. Every block is preceded by untimed calls, which bring the code
    back into the caches and wake the contender's own threads.
    """
    repeats, spin_s = {}, PAUSE_S
    for name, work in works.items():
        spin_s = settle(spin_s, work, sleep)
        repeats[name] = calibrate(work, clock)
    samples = {name: [] for name in works}
    names = list(works)
    start = clock()
    for done in range(max_rounds):
        patience = 1 if done >= min_rounds else 5  # on a crowded machine, fewer rounds rather than an endless run
        if done >= 2 and clock() - start > patience * seconds:
            break
        shuffled = random.Random(done).sample(names, len(names))
        for name in sorted(shuffled, key=lambda name: works[name].spin_s):
            work, count = works[name], repeats[name]
            spin_s = settle(spin_s, work, sleep)
            for _ in range(2 if count > 2 else 1):
                work.run()
            begin = clock()
            for _ in range(count):
                work.run()
            samples[name].append((clock() - begin) * 1e6 / (count * work.calls))
    return samples


def settle(spin_s: float, following: Work, sleep) -> float:
    """Wait until threads that spin for spin_s are out of the way of `following`; returns how long its own will spin."""
    sleep(spin_s if spin_s > following.spin_s else PAUSE_S)
    return following.spin_s


def quantile(values: list[float], q: float) -> float:
    """Linear interpolation between order statistics."""
    ordered = sorted(values)
    at = q * (len(ordered) - 1)
    low = math.floor(at)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (at - low)


def statistics(samples_us: list[float]) -> dict[str, float]:
    """Best, median, p10 and p90 in us, to four digits."""
    kept = {"best_us": 0.0, "p10_us": 0.1, "median_us": 0.5, "p90_us": 0.9}
    stats = {name: float(f"{quantile(samples_us, q):.4g}") for name, q in kept.items()}
    return {**stats, "samples": len(samples_us)}
