"""Tunes Triton's tile shapes, one problem after another until time is up; what is found is on disk after each.

python -m minifloat.kernels.triton.tune writes its file at the end, for the problems it was given; here its entries are
added to those that are there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from minifloat.kernels.triton import configs

from .cases import SHAPES

ROWS = (1, 16, 64, 4, 256, 4096)
WIDTHS = (4, 8, 6, 3, 2)


def problems() -> Iterator[tuple[int, int, int, int]]:
    """(n, k, m, bits), what matters most first."""
    for m in ROWS:
        for bits in WIDTHS:
            for n, k in SHAPES:
                yield n, k, m, bits


def read(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {"entries": []}


def is_of(entry: dict, n: int, k: int, m: int, bits: int) -> bool:
    problem = entry["problem"]  # the kernel, the width, ..., rows, n, k
    return problem[1] == bits and problem[-3:] == [configs.rows_bucket(m), n, k]


def tune_until(end: float, path: Path, tune_one: Callable) -> None:
    """Ends when too little time is left for another. tune_one(n, k, m, bits) writes `path` anew, its entries alone."""
    longest, new = 0.0, 0
    for problem in problems():
        kept = read(path)["entries"]
        if any(is_of(entry, *problem) for entry in kept):
            continue
        start = time.monotonic()
        if start + longest >= end:
            return
        tune_one(*problem)
        found = read(path)
        known = [entry["problem"] for entry in found["entries"]]
        new += len(known)
        entries = [entry for entry in kept if entry["problem"] not in known] + found.pop("entries")
        lines = ",\n".join(json.dumps(entry) for entry in entries)
        path.write_text(f'{json.dumps(found)[:-1]}, "entries": [\n{lines}\n]}}\n')
        print(f"saved: {new} new ones of {len(entries)} entries in {path}", flush=True)
        longest = max(longest, time.monotonic() - start)


def tune_one(n: int, k: int, m: int, bits: int) -> None:
    from minifloat.kernels.triton import tune

    sys.argv = ["tune", "--problems", f"{n}x{k}", "--rows", str(m), "--bits", str(bits)]
    tune.main()


def main() -> None:
    import torch

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    end = time.monotonic() + parser.parse_args().seconds
    tune_until(end, configs.HERE / "tuned" / configs.file_name(torch.cuda.get_device_name()), tune_one)


if __name__ == "__main__":
    main()
