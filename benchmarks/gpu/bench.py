"""Measures linear on the GPU, L2-cold, under CUDA graphs; writes <gpu>-<date>.json, .md and .png, as figures come."""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import torch

import minifloat as mf
from minifloat.ops import cuda

from . import report
from .cases import OURS, OURS_FULL, TRITON
from .contenders import PEERS, Ours, Triton
from .groups import failed_routes
from .measure import cases, isolated, measured, read_records, say
from .packages import PACKAGES, contenders_of, not_installed
from .timing import copied_bytes_per_us

RESULTS = Path(__file__).resolve().parents[1] / "results"
GROUPS = ("ours", "torch", "triton", *PACKAGES)
SHARES = {"ours": 0.5, "torch": 0.4, "triton": 0.6}  # of the time that is left; the packages take what they need
MOST_SECONDS = 150  # for one package
COMMAND = [sys.executable, "-m", "benchmarks.gpu.bench"]


def contenders(group: str, full: bool, failed: frozenset[str] = frozenset()) -> dict:
    """{name: (make, bits of a weight)}"""
    if group == "ours":
        formats = OURS + (OURS_FULL if full else ())
        return {f"ours {name}": (Ours(w, *how, failed), mf.QuantSpec.parse(w).format.bits) for name, w, *how in formats}
    if group == "triton":
        names = {f"ours triton {w}{f' x {a}' if a else ''}": (w, a) for w, a in TRITON}
        return {name: (Triton(w, a), mf.QuantSpec.parse(w).format.bits) for name, (w, a) in names.items()}
    return PEERS if group == "torch" else contenders_of(group, full)


def not_here(group: str) -> str | None:
    """Why nothing of this group can be measured, or None."""
    if group == "ours" and not cuda.state().startswith("available"):
        return f"the CUDA backend is {cuda.state()}"
    if group == "triton" and find_spec("triton") is None:
        return "Triton is not installed"
    return not_installed(group) if group in PACKAGES else None


def measure_group(group: str, full: bool, failed: frozenset[str], file: Path) -> None:
    """The process of one group: each record is on disk before the next is begun."""
    done = read_records(file)
    with file.open("a") as out:
        for record in measured(contenders(group, full, failed), done):
            say(record)
            print(json.dumps(record), file=out, flush=True)


def measure(full: bool, seconds: float, tests: Path | None, write) -> None:
    """All groups in turn; write(records) after each record."""
    end, finished = time.monotonic() + seconds, []
    with tempfile.TemporaryDirectory() as folder:
        for group in GROUPS:
            found = contenders(group, full)
            why = not_here(group)
            if why:
                print(f"{group}: {why}", flush=True)
                finished += [case | {"missing": why} for case in cases(found)]
                continue
            left = max(1.0, end - time.monotonic())
            file = Path(folder) / f"{group}.jsonl"
            command = [*COMMAND, "--only", group, "--records", str(file), *["--full"] * full]
            command += ["--tests", str(tests)] if tests else []
            limit = left * SHARES[group] if group in SHARES else min(left, MOST_SECONDS)
            finished += isolated(group, found, file, limit, command, partial(_write_all, write, list(finished)))
    write(finished)


def _write_all(write, earlier: list[dict], records: list[dict]) -> None:
    write(earlier + records)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--tests", type=Path, help="of `make gpu`: routes whose tests failed are not measured")
    parser.add_argument("--only", choices=GROUPS, help="measure this group only, into --records")
    parser.add_argument("--records", type=Path)
    arguments = parser.parse_args()
    if arguments.only:
        failed = failed_routes(json.loads(arguments.tests.read_text())) if arguments.tests else frozenset()
        return measure_group(arguments.only, arguments.full, failed, arguments.records)
    gpu = torch.cuda.get_device_name()
    result = {
        "gpu": gpu,
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda or f"none, ROCm {torch.version.hip}",
        "copied_bytes_per_us": copied_bytes_per_us(),
        "method": "median of 20 replays of a CUDA graph; each call in it has a weight of its own, 4 times L2 in all",
        "records": [],
    }
    torch.cuda.empty_cache()
    stem = f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{result['date']}"
    out = arguments.out / stem

    def write(records: list[dict]) -> None:
        result["records"] = records
        out.with_name(f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
        out.with_name(f"{stem}.md").write_text(report.table(result))

    write([])
    measure(arguments.full, arguments.seconds, arguments.tests, write)
    print(report.table(result))
    report.plot(result, out.with_name(f"{stem}.png"))


if __name__ == "__main__":
    main()
