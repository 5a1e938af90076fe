"""Results on disk: JSON lines, one a finished cell, only ever appended, so that an interrupted sweep loses no line."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import asdict
from pathlib import Path

from .cells import Cell


class StoreError(Exception):
    """A file of results cannot be read or written; the message names the line and what is wrong with it."""


class Store:
    """A file of results, open for appending by one process at a time.

    A line is {"key": ..., "cell": {...}, "result": {...}}. A last line without its end was being written when the
    process died: it is cut off, and its cell is measured again. Anything else that cannot be read is an error.

    Attributes:
        path: the file; made, with its folders, if it is not there.
        results: what it holds, Cell -> result.
    """

    def __init__(self, path: Path):
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(self.path, "ab")  # noqa: SIM115 - closed by close()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise StoreError(
                f"{self.path} is being written by another sweep: wait for it, or use another --out"
            ) from None
        try:
            self.results, whole_bytes = _read(self.path)
        except StoreError:
            self._file.close()
            raise
        self._file.truncate(whole_bytes)

    def append(self, cell: Cell, result: dict) -> None:
        """Add a result. On disk, not only in a buffer, when this returns."""
        if cell in self.results:
            raise StoreError(f"{self.path} already holds a result for {cell} ({cell.key})")
        line = json.dumps({"key": cell.key, "cell": asdict(cell), "result": result}, allow_nan=False)
        self._file.write(line.encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.results[cell] = result

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error) -> None:
        self.close()


def read(path: Path) -> dict[Cell, dict]:
    """The results of a file, Cell -> result, without opening it for writing.

    Raises:
        StoreError: there is no such file, or it is not one of results.
    """
    if not Path(path).is_file():
        raise StoreError(f"{path} does not exist: make it with `minifloat explore --out {path}`")
    return _read(Path(path))[0]


def _read(path: Path) -> tuple[dict[Cell, dict], int]:
    """The results, and how many bytes the whole lines take."""
    lines = path.read_bytes().split(b"\n")
    torn = lines.pop()  # empty if the file ends with the end of a line
    results: dict[Cell, dict] = {}
    for number, line in enumerate(lines, 1):
        cell, result = _parse(line, f"{path}, line {number}")
        if cell in results:
            raise StoreError(f"{path}, line {number}: a second result for {cell} ({cell.key})")
        results[cell] = result
    return results, path.stat().st_size - len(torn)


def _parse(line: bytes, where: str) -> tuple[Cell, dict]:
    advice = "remove the line to have its cell measured again, or restore the file"
    try:
        entry = json.loads(line)
        cell, result = Cell(**entry["cell"]), entry["result"]
        key, metrics = entry["key"], result["metrics"]
    except (ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{where} is not a result ({type(error).__name__}: {error}): {advice}") from None
    if key != cell.key:
        raise StoreError(f"{where}: the key is {key}, but its cell has {cell.key}: {advice}")
    if not isinstance(metrics, dict) or not all(
        value is None or isinstance(value, int | float) for value in metrics.values()
    ):
        raise StoreError(f"{where}: metrics must be numbers or null by name, got {metrics!r}: {advice}")
    return cell, result
