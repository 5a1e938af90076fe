"""Measure cells on dask workers and keep each result as it comes, so that an interrupted sweep goes on where it was."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import contextmanager

from .cells import Cell
from .measure import measure
from .store import Store


def sweep(
    cells: Iterable[Cell],
    store: Store,
    address: str | None = None,
    workers: int = 1,
    on_result: Callable[[Cell, dict], None] = lambda cell, result: None,
) -> dict[Cell, Exception]:
    """Measure the cells that the store does not hold yet, in their order.

    Args:
        address: of a dask scheduler, such as "tcp://host:8786"; its workers need minifloat and the task's packages.
            None: workers within this process or, for more than one, processes of this machine.
        workers: of the local cluster. Times are only meaningful with 1.
        on_result: called after each result is stored.
    Returns:
        The cells that failed, with their errors. They are not stored: the next sweep tries them again.
    """
    from distributed import as_completed

    todo = [cell for cell in dict.fromkeys(cells) if cell not in store.results]
    failed: dict[Cell, Exception] = {}
    if not todo:
        return failed
    with _client(address, workers) as client:
        cell_of = {}
        for place, cell in enumerate(todo):
            # pure=False: a scheduler that outlives this sweep must not answer from its memory.
            future = client.submit(measure, cell, pure=False, priority=-place, retries=0)
            cell_of[future] = cell
        for future in as_completed(list(cell_of)):
            cell = cell_of.pop(future)
            if (error := future.exception()) is not None:
                failed[cell] = error
            else:
                store.append(cell, future.result())
                on_result(cell, store.results[cell])
            future.release()
    return failed


@contextmanager
def _client(address: str | None, workers: int):
    from distributed import Client, LocalCluster

    if address is not None:
        with Client(address) as client:
            yield client
        return
    many = workers > 1
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=many,
        protocol=None if many else "inproc://",
        dashboard_address="127.0.0.1:0",  # any free port: sweeps may run side by side
        memory_limit=0,  # a worker that dask restarts for its memory would start the cell again
    )
    with cluster, Client(cluster) as client:
        yield client
