"""The machine's limits, measured, and the limit they set for one cell."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from .environment import ROOT, cpu_flags

SOURCE = ROOT / "benchmarks" / "ceilings.cpp"


def compiled(source: Path, *options: str) -> Path:
    """What g++ makes of a file of this folder, with these options: in build/, made again when the source is newer."""
    made = ROOT / "build" / source.stem
    if not made.exists() or made.stat().st_mtime < source.stat().st_mtime:
        made.parent.mkdir(exist_ok=True)
        subprocess.run(["g++", "-std=c++20", "-O2", *options, str(source), "-o", str(made)], check=True)
    return made


def measure_ceilings(threads: int, *only: str) -> dict[str, float]:
    """Run benchmarks/ceilings.cpp, compiled on demand: GB/s and Gop/s by name, for everything this CPU has.

    Args:
        only: "dram" leaves the instructions out.
    """
    program = compiled(SOURCE, "-pthread")
    extra = ["avx_vnni"] if "avx_vnni" in cpu_flags() else []
    ran = subprocess.run([str(program), str(threads), *extra, *only], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)


def better(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """The larger of two measurements: a ceiling is what the machine reaches when nobody disturbs it."""
    return {name: max(rate, after.get(name, rate)) for name, rate in before.items()}


def peak(ceilings: dict[str, float], start: str, isa: str = "native") -> float:
    """The fastest of the measured figures whose name starts so, without instructions that `isa` does not have."""
    missing = []
    if isa != "native":
        missing += [] if "512" in isa else ["avx512"]
        missing += [] if "vnni" in isa else ["dpbusd"]
    found = [rate for name, rate in ceilings.items() if name.startswith(start) and not any(m in name for m in missing)]
    if not found:
        raise ValueError(f"no ceiling named {start}*, only {', '.join(ceilings)}")
    return max(found)


def limit_us(
    ceilings: dict[str, float],
    shape: tuple[int, int],
    m: int,
    weight_bytes: float,
    arithmetic: str,
    isa: str = "native",
) -> float | None:
    """The least time that one call could take: every byte once from DRAM, every multiply-add at full rate.

    Args:
        shape: (N, K).
        weight_bytes: as the kernel reads them; x and y count as float32.
        arithmetic: 'int8' or 'float32'; None comes back for others, whose ceiling is not measured.
        isa: what the kernel may use; "native" is everything that was measured.
    """
    if arithmetic not in ("int8", "float32"):
        return None
    n, k = shape
    memory_us = (weight_bytes + 4 * m * (n + k)) / peak(ceilings, "dram_") * 1e-3
    compute_us = 2 * m * n * k / peak(ceilings, arithmetic, isa) * 1e-3
    return max(memory_us, compute_us)
