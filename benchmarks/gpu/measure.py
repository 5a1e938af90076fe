"""Runs contenders over shapes and batches in processes of their own; whatever fails becomes a record."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from .cases import BATCHES, SHAPES
from .process import ended, environment, start, stop
from .timing import copies_needed, time_us

STALL_SECONDS = 60  # without a record; kernels that are compiled or tuned at the first call take their time


class NotHere(Exception):
    """This contender cannot run this case; the message says why."""


def cases(contenders: dict) -> Iterator[dict]:
    """What is measured of each, without the result: a batch of all shapes before the next, for who has little time.

    make.batches, where there are any, are the only ones of that contender.
    """
    for m in BATCHES:
        for n, k in SHAPES:
            for name, (make, bits) in contenders.items():
                if m not in getattr(make, "batches", BATCHES):
                    continue
                yield {"contender": name, "n": n, "k": k, "m": m, "bits": bits}


def key_of(record: dict) -> tuple:
    return record["contender"], record["n"], record["k"], record["m"]


def attempt(make: Callable, x, w, copies: int, timer: Callable = time_us) -> dict:
    """{"time_us"}, or {"missing"}: why there is none. A contender may fail in any way that is an exception.

    make.check(x, w, y), where there is one, adds to the record, or raises where y is wrong.
    """
    try:
        calls = make(x, w, copies)
        facts = make.check(x, w, calls[0]()) if hasattr(make, "check") else {}
        return {"time_us": timer(calls)} | facts
    except NotHere as error:
        return {"missing": str(error)}
    except Exception as error:
        lines = str(error).strip().splitlines()
        return {"missing": f"{type(error).__name__}: {lines[0][:300] if lines else '(no message)'}"}


def measured(contenders: dict, done: dict[tuple, dict] | None = None) -> Iterator[dict]:
    """One record per contender, shape and batch: {"contender", "n", "k", "m", "bits", "time_us" or "missing"}.

    done: records of earlier processes. A contender that ended one ("fatal") is not run again.
    """
    done = done or {}
    fatal = {r["contender"]: r["missing"] for r in done.values() if r.get("fatal")}
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    shape = w = x = None
    for case in cases(contenders):
        n, k, m, name = case["n"], case["k"], case["m"], case["contender"]
        if key_of(case) in done:
            continue
        if name in fatal:
            yield case | {"missing": fatal[name]}
            continue
        if shape != (n, k, m):
            generator = torch.Generator(device="cuda").manual_seed(0)
            w = torch.randn(n, k, generator=generator, device="cuda", dtype=torch.float16)
            x = torch.randn(m, k, generator=generator, device="cuda", dtype=torch.float16)
            shape = (n, k, m)
        copies = copies_needed(n * k * case["bits"] // 8, l2_bytes) if m <= 256 else 4
        record = case | attempt(contenders[name][0], x, w, copies)
        if "missing" in record and not usable():
            yield record | {"fatal": True}
            return  # nothing can be run in this process any more
        yield record
        torch.cuda.empty_cache()


def usable() -> bool:
    """Whether the CUDA context outlived the last contender."""
    try:
        torch.cuda.synchronize()
        return True
    except Exception:
        return False


def say(record: dict) -> None:
    shape = f"{record['n']}x{record['k']} M={record['m']}"
    print(f"{shape} {record['contender']}: {record.get('time_us', record.get('missing'))}", flush=True)


def read_records(file: Path) -> dict[tuple, dict]:
    lines = file.read_text().split("\n")[:-1] if file.exists() else []  # what follows the last newline is unfinished
    return {key_of(record): record for record in map(json.loads, lines)}


def isolated(
    group: str,
    contenders: dict,
    file: Path,
    seconds: float,
    command: list[str] | None = None,
    changed: Callable[[list[dict]], None] = lambda records: None,
    stall: float = STALL_SECONDS,
) -> list[dict]:
    """A group's records from processes of their own, which leave them in `file`, a line each.

    A contender that crashes or hangs loses its own figures from there on; the others' go on in the next process.
    changed: is given the records whenever there are more.
    """
    command = command or [sys.executable, "-m", "benchmarks.gpu.bench", "--only", group, "--records", str(file)]
    wanted, end = list(cases(contenders)), time.monotonic() + seconds
    while True:
        why = _watch(command, file, end, stall, changed)
        done = read_records(file)
        left = [case for case in wanted if key_of(case) not in done]
        if not left:
            break
        if time.monotonic() >= end:
            _add(file, [case | {"missing": f"{group}: no time left of {seconds:.0f} s"} for case in left])
            break
        if not any(record.get("fatal") for record in list(done.values())[-1:]):  # else the process said so itself
            _add(file, [left[0] | {"missing": f"{group}: its process {why}", "fatal": True}])
        fatal = {r["contender"]: r["missing"] for r in read_records(file).values() if r.get("fatal")}
        _add(file, [case | {"missing": fatal[case["contender"]]} for case in left[1:] if case["contender"] in fatal])
    done = read_records(file)
    changed(list(done.values()))
    missing = [done[key_of(case)]["missing"] for case in wanted if "missing" in done[key_of(case)]]
    if missing:
        print(
            f"{group}: {len(missing)} of {len(wanted)} figures are missing: {'; '.join(dict.fromkeys(missing))}",
            flush=True,
        )
    return [done[key_of(case)] for case in wanted]


def _add(file: Path, records: list[dict]) -> None:
    text = file.read_text() if file.exists() else ""
    whole = text[: text.rfind("\n") + 1]
    file.write_text(whole + "".join(json.dumps(record) + "\n" for record in records))


def _watch(command: list[str], file: Path, end: float, stall: float, changed: Callable) -> str:
    """Runs a process until it ends, or hangs, or time is up; says which."""
    process = start(command, env=environment())
    seen, last = 0, time.monotonic()
    try:
        while process.poll() is None:
            now, size = time.monotonic(), file.stat().st_size if file.exists() else 0
            if size != seen:
                seen, last = size, now
                changed(list(read_records(file).values()))
            if now > end or now - last > stall:
                return f"was stopped after {min(stall, now - last):.0f} s without a result"
            time.sleep(0.2)
        return ended(process.returncode)
    finally:
        stop(process)
