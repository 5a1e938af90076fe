"""Measures linear on the GPU, L2-cold, under CUDA graphs; writes benchmarks/results/<gpu>-<date>.json, .md and .png."""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from datetime import date
from pathlib import Path

import torch

import minifloat as mf

from . import report
from .cases import OURS, OURS_FULL
from .contenders import PEERS, ours
from .measure import isolated, measured, say
from .packages import PACKAGES, contenders_of

RESULTS = Path(__file__).resolve().parents[1] / "results"


def measure(full: bool) -> list[dict]:
    """Records of our kernels and of those that torch has, then of every package."""
    formats = OURS + (OURS_FULL if full else ())
    contenders = {f"ours {name}": (ours(w, *how), mf.QuantSpec.parse(w).format.bits) for name, w, *how in formats}
    records = []
    for record in measured(contenders | PEERS):
        say(record)
        records.append(record)
    torch.cuda.empty_cache()
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            records += isolated(package, full, Path(folder) / f"{package}.jsonl")
    return records


def measure_package(package: str, full: bool, file: Path) -> None:
    """The process of one package: each record is on disk before the next is begun."""
    with file.open("a") as out:
        for record in measured(contenders_of(package, full)):
            say(record)
            print(json.dumps(record), file=out, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--package", choices=PACKAGES, help="measure this package only, into --records")
    parser.add_argument("--records", type=Path)
    arguments = parser.parse_args()
    if arguments.package:
        return measure_package(arguments.package, arguments.full, arguments.records)
    records = measure(arguments.full)
    gpu = torch.cuda.get_device_name()
    result = {
        "gpu": gpu,
        "date": date.today().isoformat(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "method": "median of 20 replays of a CUDA graph; each call in it has a weight of its own, 4 times L2 in all",
        "records": records,
    }
    stem = f"{re.sub(r'[^a-z0-9]+', '-', gpu.lower()).strip('-')}-{result['date']}"
    (RESULTS / f"{stem}.json").write_text(json.dumps(result, indent=1) + "\n")
    table = report.table(result)
    (RESULTS / f"{stem}.md").write_text(table)
    print(table)
    report.plot(result, RESULTS / f"{stem}.png")


if __name__ == "__main__":
    main()
