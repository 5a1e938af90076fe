"""The machine's limits, measured, and the limit they set for one cell."""

from __future__ import annotations

import json
import subprocess

from .environment import ROOT, cpu_flags

SOURCE = ROOT / "benchmarks" / "ceilings.cpp"
PROGRAM = ROOT / "build" / "ceilings"


def measure_ceilings(threads: int, isa: str) -> dict[str, float]:
    """Run benchmarks/ceilings.cpp, compiled on demand: GB/s and Gop/s by name.

    Args:
        isa: what our kernels run on; wider instructions are left out.
    """
    if not PROGRAM.exists() or PROGRAM.stat().st_mtime < SOURCE.stat().st_mtime:
        PROGRAM.parent.mkdir(exist_ok=True)
        subprocess.run(["g++", "-std=c++20", "-O2", "-pthread", str(SOURCE), "-o", str(PROGRAM)], check=True)
    extra = ["avx_vnni"] if "avx_vnni" in cpu_flags() else []
    ran = subprocess.run([str(PROGRAM), str(threads), isa, *extra], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout)


def peak(ceilings: dict[str, float], start: str) -> float:
    """The fastest of the measured figures whose name starts so."""
    found = [rate for name, rate in ceilings.items() if name.startswith(start)]
    if not found:
        raise ValueError(f"no ceiling named {start}*, only {', '.join(ceilings)}")
    return max(found)


def limit_us(
    ceilings: dict[str, float], shape: tuple[int, int], m: int, weight_bytes: int, arithmetic: str
) -> float | None:
    """The least time that one call could take: every byte once from DRAM, every multiply-add at full rate.

    Args:
        shape: (N, K).
        weight_bytes: as the kernel reads them; x and y count as float32.
        arithmetic: 'int8' or 'float32'; None comes back for others, whose ceiling is not measured.
    """
    if arithmetic not in ("int8", "float32"):
        return None
    n, k = shape
    memory_us = (weight_bytes + 4 * m * (n + k)) / peak(ceilings, "dram_") * 1e-3
    compute_us = 2 * m * n * k / peak(ceilings, arithmetic) * 1e-3
    return max(memory_us, compute_us)
