"""Kernel time without launch gaps and without the luck of a warm cache."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import torch

REPLAYS = 20
TIMES_L2 = 4  # the weights of one graph are so many times as large as the L2 cache


def copies_needed(weight_bytes: int, l2_bytes: int) -> int:
    """Copies of a weight that, used in turn, leave nothing of each other in the L2 cache."""
    return max(4, math.ceil(TIMES_L2 * l2_bytes / max(weight_bytes, 1)))


def copied_bytes_per_us() -> float:
    """What the GPU's memory moves, read and written bytes together: the median of copies of 2 GiB."""
    source = torch.empty(1 << 31, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / time_us([lambda: target.copy_(source)] * 4)


def time_us(calls: Sequence[Callable[[], object]]) -> float:
    """Median time of one call, in us: all are captured in one CUDA graph, which is replayed.

    Each call must use a weight of its own (copies_needed of them), else the figure is one of a warm cache.
    """
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for call in calls:  # libraries choose algorithms, compile and allocate workspaces now: some do for each weight
            call()
    stream.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        kept = [call() for call in calls]
    del kept
    for _ in range(3):
        graph.replay()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(REPLAYS)]
    for before, after in events:
        before.record()
        graph.replay()
        after.record()
    torch.cuda.synchronize()
    return statistics.median(before.elapsed_time(after) for before, after in events) * 1000 / len(calls)
