"""Runs contenders over shapes and batches, and packages in processes of their own; whatever fails becomes a record."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .cases import BATCHES, SHAPES
from .packages import contenders_of, not_installed
from .timing import copies_needed, time_us

ROOT = Path(__file__).resolve().parents[2]
PACKAGE_SECONDS = 150  # for one package's process: kernels that are compiled or tuned at the first call take their time


class NotHere(Exception):
    """This contender cannot run this case; the message says why."""


def cases(contenders: dict) -> Iterator[dict]:
    """What is measured of each, without the result."""
    for n, k in SHAPES:
        for m in BATCHES:
            for name, (_, bits) in contenders.items():
                yield {"contender": name, "n": n, "k": k, "m": m, "bits": bits}


def attempt(make: Callable, x, w, copies: int, timer: Callable = time_us) -> dict:
    """{"time_us"}, or {"missing"}: why there is none. A contender may fail in any way that is an exception."""
    try:
        return {"time_us": timer(make(x, w, copies))}
    except NotHere as error:
        return {"missing": str(error)}
    except Exception as error:
        lines = str(error).strip().splitlines()
        return {"missing": f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"}


def measured(contenders: dict) -> Iterator[dict]:
    """One record per contender, shape and batch: {"contender", "n", "k", "m", "bits", "time_us" or "missing"}."""
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    shape = generator = w = x = None
    for case in cases(contenders):
        n, k, m = case["n"], case["k"], case["m"]
        if shape != (n, k):
            generator = torch.Generator(device="cuda").manual_seed(0)
            w = torch.randn(n, k, generator=generator, device="cuda", dtype=torch.float16)
        if shape != (n, k) or x.shape[0] != m:
            x = torch.randn(m, k, generator=generator, device="cuda", dtype=torch.float16)
        shape = (n, k)
        copies = copies_needed(n * k * case["bits"] // 8, l2_bytes) if m <= 256 else 4
        yield case | attempt(contenders[case["contender"]][0], x, w, copies)
        torch.cuda.empty_cache()


def say(record: dict) -> None:
    shape = f"{record['n']}x{record['k']} M={record['m']}"
    print(f"{shape} {record['contender']}: {record.get('time_us', record.get('missing'))}", flush=True)


def isolated(
    package: str, full: bool, file: Path, command: list[str] | None = None, seconds: float = PACKAGE_SECONDS
) -> list[dict]:
    """A package's records from a process of its own, which leaves them in `file`, a line each.

    What that process did not get to is recorded with how it ended: a crash or a hang costs that package's figures only.
    """
    contenders = contenders_of(package, full)
    why = not_installed(package)
    if why:
        print(f"{package}: {why}", flush=True)
        return [case | {"missing": why} for case in cases(contenders)]
    command = command or [sys.executable, "-m", "benchmarks.gpu.bench", "--package", package, "--records", str(file)]
    try:
        code = subprocess.run(command + ["--full"] * full, cwd=ROOT, timeout=seconds).returncode
        end = f"its process ended with {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"
    except subprocess.TimeoutExpired:
        end = f"its process was stopped after {seconds:.0f} s"
    lines = file.read_text().split("\n")[:-1] if file.exists() else []  # what follows the last newline is unfinished
    done = {(r["contender"], r["n"], r["k"], r["m"]): r for r in map(json.loads, lines)}
    records = []
    for case in cases(contenders):
        key = (case["contender"], case["n"], case["k"], case["m"])
        records.append(done.get(key, case | {"missing": f"{package}: {end}"}))
    if len(done) < len(records):
        print(f"{package}: {len(records) - len(done)} of {len(records)} figures are missing: {end}", flush=True)
    return records
