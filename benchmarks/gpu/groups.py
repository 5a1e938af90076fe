"""The GPU's tests, each group in its own process: a kernel that breaks the CUDA context costs no other's result."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from .process import run

# Warnings are no errors there: torch, numpy and pytest are not the versions that this repository pins.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-p", "no:cacheprovider"]
SHARED = 12  # tests of one process, where they come in no groups of their own


@dataclass(frozen=True)
class Suite:
    paths: tuple[str, ...]
    seconds: int  # at most for one group


TRITON = tuple(f"tests/triton_backend/test_{name}.py" for name in ("linear", "scaled", "qlinear", "storage"))
# Triton compiles a kernel at its first call, for seconds, and a test calls several.
SUITES = {"cuda": Suite(("tests/cuda/gpu",), 60), "triton": Suite(TRITON, 240)}


def group_of(test: str) -> str:
    """narrow.int8 from ...::test_route[narrow.int8-e2m1-row-...]; else the file's name, for a process takes seconds."""
    return (re.search(r"::test_route\[([^-\]]+)", test) or re.search(r"(\w+)\.py::", test))[1]


def collect(backend: str) -> dict[str, list[str]]:
    """{group: its tests}, in the order in which they are to run.

    CUDA: the routes first. Triton: a file's tests are dealt out, so that each group is a sample of them, and the first
    groups of all files come first.
    Raises:
        RuntimeError: they cannot be collected, with pytest's words.
    """
    paths = SUITES[backend].paths
    code, output = run([*PYTEST, "--collect-only", *paths], 60)
    tests = [line for line in output.splitlines() if line.startswith(paths) and "::" in line]
    if code or not tests:
        raise RuntimeError(f"pytest could not collect {' '.join(paths)} ({code}):\n{output[-2000:]}")
    groups: dict[str, list[str]] = {}
    for test in sorted(tests, key=lambda test: "::test_route[" not in test):
        groups.setdefault(group_of(test), []).append(test)
    return groups if backend == "cuda" else dealt_out(groups)


def dealt_out(groups: dict[str, list[str]]) -> dict[str, list[str]]:
    """Each group in as many as there must be for SHARED tests at most in one: name.1, name.2, ..."""
    parts = {name: -(-len(tests) // SHARED) for name, tests in groups.items()}
    turns = sorted((i, name) for name, count in parts.items() for i in range(count))
    return {f"{name}.{i + 1}": groups[name][i :: parts[name]] for i, name in turns}


def test_group(tests: list[str], seconds: float) -> dict:
    """{"status", "counts", "seconds", "failures", "log"}; status: passed, failed, skipped, or how its process ended."""
    start = time.perf_counter()
    code, output = run([*PYTEST, "--tb=short", "-rfEs", *tests], seconds, OMP_NUM_THREADS="2", COLUMNS="400")
    lines = output.splitlines()
    counts = next((line for line in reversed(lines) if re.search(r"\d+ (passed|failed|skipped|error)", line)), "")
    failures = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    statuses = {0: "passed" if "passed" in counts else "skipped", 1: "failed", 2: "failed"}
    return {
        "status": statuses.get(code, str(code)),
        "counts": counts.strip("= "),
        "seconds": round(time.perf_counter() - start, 1),
        "failures": failures,
        "log": "" if code == 0 else output[-6000:],
    }


def run_groups(
    groups: dict[str, list[str]], seconds: float, jobs: int, file: Path, group_seconds: float
) -> dict[str, dict]:
    """All groups' results, so many at a time; `file` is written anew after each, for the case that this is stopped.

    A group that is stopped before its own group_seconds, because `seconds` are over, counts as not run.
    """
    end, lock, results = time.monotonic() + seconds, threading.Lock(), {}

    def one(group):
        left = end - time.monotonic()
        if left < 5:
            result = {
                "status": "not run",
                "counts": f"no time left of {seconds:.0f} s",
                "seconds": 0,
                "failures": [],
                "log": "",
            }
        else:
            result = test_group(groups[group], min(group_seconds, left))
            if left < group_seconds and result["status"].startswith("stopped"):
                result |= {"status": "not run", "counts": f"{result['status']}, when no time was left"}
        with lock:
            results[group] = result
            file.write_text(json.dumps(results, indent=1) + "\n")
            print(f"{group}: {result['status']}, {result['counts']}", flush=True)
            for line in result["failures"][:3]:
                print(f"  {line[:300]}", flush=True)
            if result["status"] not in ("passed", "skipped", "failed", "not run"):
                print("  " + "\n  ".join(result["log"].splitlines()[-5:]), flush=True)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(one, groups))
    return results


def not_passed(results: dict[str, dict]) -> list[str]:
    return [group for group, result in results.items() if result["status"] not in ("passed", "skipped")]


def failed_routes(results: dict[str, dict]) -> frozenset[str]:
    """What is not to be measured. Groups for which there was no time are: the benchmark checks what it measures."""
    return frozenset(group for group in not_passed(results) if results[group]["status"] != "not run")


def summary(results: dict[str, dict]) -> str:
    """One line for each state, the passing groups last."""
    states: dict[str, list[str]] = {}
    for group, result in results.items():
        states.setdefault(result["status"], []).append(group)
    order = sorted(states, key=lambda state: (state == "passed", state))
    return "\n".join(f"{state}: {', '.join(sorted(states[state]))}" for state in order)
