"""Measures linear on the GPU, L2-cold, under CUDA graphs; writes benchmarks/results/<gpu>-<date>.json, .md and .png."""

from __future__ import annotations

import argparse
import json
import re
from datetime import date
from pathlib import Path

import torch

import minifloat as mf

from . import report
from .cases import BATCHES, OURS, OURS_FULL, SHAPES
from .contenders import PEERS, NotHere, ours
from .timing import copies_needed, time_us

RESULTS = Path(__file__).resolve().parents[1] / "results"


def measure(full: bool) -> list[dict]:
    """One record per contender, shape and batch: {"contender", "n", "k", "m", "time_us" or "missing"}."""
    records = []
    l2_bytes = torch.cuda.get_device_properties(0).L2_cache_size
    contenders = {f"ours {name}": (ours(w, a), mf.QuantSpec.parse(w).format.bits) for name, w, a in OURS}
    if full:
        contenders |= {f"ours {name}": (ours(w, a), mf.QuantSpec.parse(w).format.bits) for name, w, a in OURS_FULL}
    contenders |= PEERS
    for n, k in SHAPES:
        generator = torch.Generator(device="cuda").manual_seed(0)
        w = torch.randn(n, k, generator=generator, device="cuda", dtype=torch.float16)
        for m in BATCHES:
            x = torch.randn(m, k, generator=generator, device="cuda", dtype=torch.float16)
            for name, (make, bits) in contenders.items():
                record = {"contender": name, "n": n, "k": k, "m": m, "bits": bits}
                try:
                    copies = copies_needed(n * k * bits // 8, l2_bytes) if m <= 256 else 4
                    record["time_us"] = time_us(make(x, w, copies))
                except (NotHere, RuntimeError, ValueError) as error:
                    record["missing"] = str(error).splitlines()[0]
                records.append(record)
                print(f"{n}x{k} M={m} {name}: {record.get('time_us', record.get('missing'))}", flush=True)
                torch.cuda.empty_cache()
    return records


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true")
    records = measure(parser.parse_args().full)
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
