"""A progress bar on work that takes long enough to wonder about, and only where somebody is watching."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized

DELAY_S = 0.5  # shorter work shows no bar


def track(items: Iterable, description: str) -> Iterator:
    """Yield the items, with a rich bar on stderr if that is a terminal and they take over half a second."""
    if not sys.stderr.isatty():
        yield from items
        return
    from rich.console import Console
    from rich.progress import Progress  # 50 ms to import, so not before it is needed

    total = len(items) if isinstance(items, Sized) else None
    start = time.monotonic()
    bar = Progress(console=Console(stderr=True), transient=True, redirect_stdout=False)  # stdout may be a pipe
    task = bar.add_task(description, total=total)
    try:
        for item in items:
            if not bar.live.is_started and time.monotonic() - start > DELAY_S:
                bar.start()
            yield item
            bar.advance(task)
    finally:
        bar.stop()
