"""Measures every config that fits this GPU and writes the fastest of each problem to tuned/<gpu>.json.

    python -m minifloat.kernels.triton.tune --problems 4096x4096 8192x8192 --rows 1 4 16 64 256 --seconds 600

The file is written after each problem. What it holds already, of the same Triton, is not measured again, so a run that
was cut off goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from importlib.metadata import version
from pathlib import Path

import torch

from . import configs

# What decides the speed is the width, then how scales, zero points and digits meet the loop: (weight, activation).
PAIRS = (
    *((f"uint{bits}-g128", None) for bits in (4, 8, 1, 2, 3, 5, 6, 7)),
    *((f"uint{bits}-row", "int8-row") for bits in (4, 8, 1, 2, 3, 5, 6, 7)),
    *(("int4-row", None), ("mxfp4", None), ("nvfp4", None), ("nf4-g64", None), ("uint4-g128-zp", None)),
    *(("mxfp4", "int8-row"), ("uint4-g128", "int8-row"), ("nvfp4", "int8-row"), ("e3m2-row", "int8-row")),
)


def measure(call, config) -> float:
    """Median time in us with this config; infinity if it does not run."""
    import triton

    kept = configs.choose
    configs.choose = lambda *_: config
    try:
        return 1000 * triton.testing.do_bench(call, return_mode="median")
    except triton.runtime.errors.OutOfResources:
        return float("inf")
    finally:
        configs.choose = kept


def entries(shapes, rows, pairs, dtypes, gpu: configs.Gpu, device: str, known=()):
    """Yields {"problem", "config", "time_us"} of each problem that is not among the `known`, once."""
    import minifloat as mf

    from ...ops.records import plan_record
    from ...ops.triton import multiplied_type, problem_of
    from ...ops.triton_plan import plan_of

    done = set(known)
    for n, k in shapes:
        w = torch.randn(n, k)
        for weight, activation in pairs:
            spec, q = mf.QuantSpec.parse(weight), None
            p = plan_of(plan_record(spec, None if activation is None else mf.QuantSpec.parse(activation), (n, k)))
            for m in rows:
                for dtype in dtypes:
                    problem = configs.bucket_of(problem_of(p, m, multiplied_type(p, m, dtype, gpu)))
                    if problem in done:
                        continue
                    done.add(problem)
                    q = mf.quantize(w.to(device), spec) if q is None else q
                    yield _entry(problem, gpu, q, torch.randn(m, k, device=device).to(dtype), activation)


def _entry(problem: configs.Problem, gpu: configs.Gpu, q, x, activation) -> dict:
    import minifloat as mf

    def call():
        return mf.linear(x, q, activation=activation, backend="triton")

    rows = max(problem.m, 16)
    fits = [c for c in configs.fitting(problem, gpu) if c.block_m < 2 * rows and configs.splits(problem, c)]
    times = {c: measure(call, c) for c in fits}
    best = min(times, key=times.get)
    print(*problem, best, f"{times[best]:.1f} us", file=sys.stderr)
    return {"problem": problem._asdict(), "config": best._asdict(), "time_us": round(times[best], 2)}


def write(path: Path, gpu: str, found: list[dict]) -> None:
    path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(map(json.dumps, found))
    head = f'"gpu": {json.dumps(gpu)}, "triton": "{version("triton")}"'
    path.write_text(f'{{{head}, "entries": [\n{lines}\n]}}\n')


def read(path: Path) -> list[dict]:
    """The entries measured with this Triton."""
    stored = json.loads(path.read_text()) if path.is_file() else {}
    return stored["entries"] if stored.get("triton") == version("triton") else []


def tune(path: Path, gpu: configs.Gpu, seconds: float, **what) -> None:
    """Adds entries to the file until all are there or the time is over; the last one may take longer."""
    end, found = time.monotonic() + seconds, read(path)
    measured = entries(gpu=gpu, known=[configs.Problem(**e["problem"]) for e in found], **what)
    while time.monotonic() < end and (entry := next(measured, None)):
        found.append(entry)
        write(path, gpu.name, found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=["4096x4096", "4096x14336", "8192x8192"], help="N x K")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16, 64, 256, 4096])
    parser.add_argument("--types", nargs="+", default=["float16", "bfloat16", "float8_e4m3fn"], help="of x")
    parser.add_argument("--bits", nargs="+", type=int, default=list(range(1, 9)), help="of the weights")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after so long")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("tune: this needs a GPU, and torch sees none")
    import minifloat as mf

    from ...ops.triton import gpu_of

    gpu = gpu_of(torch.device("cuda", torch.cuda.current_device()))
    path = configs.HERE / "tuned" / configs.file_name(gpu.name)
    tune(
        path,
        gpu,
        arguments.seconds,
        shapes=[tuple(map(int, p.split("x"))) for p in arguments.problems],
        rows=arguments.rows,
        pairs=[p for p in PAIRS if mf.QuantSpec.parse(p[0]).format.bits in arguments.bits],
        dtypes=[getattr(torch, name) for name in arguments.types],
        device="cuda",
    )
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
