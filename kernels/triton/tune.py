"""Measures every config that fits this GPU and writes the fastest of each problem to tuned/<gpu>.json.

python -m minifloat.kernels.triton.tune --problems 4096x4096 8192x8192 --rows 1 4 16 64 256
"""

from __future__ import annotations

import argparse
import json
import sys

import torch
import triton

from . import configs

WEIGHTS = {bits: f"uint{bits}-g128" for bits in range(1, 9)}  # what decides the speed is the width


def measure(layer_call, config) -> float:
    """Median time in us with this config; infinity if it does not run."""
    kept = configs.choose
    configs.choose = lambda *_: config
    try:
        return 1000 * triton.testing.do_bench(layer_call, return_mode="median")
    except triton.runtime.errors.OutOfResources:
        return float("inf")
    finally:
        configs.choose = kept


def tune(n: int, k: int, rows: list[int], widths: list[int], target: str) -> list[dict]:
    """The entries for one shape of weight."""
    import minifloat as mf

    entries = []
    for bits in widths:
        q = mf.quantize(torch.randn(n, k, device="cuda"), WEIGHTS[bits])
        for m in rows:
            x = torch.randn(m, k, device="cuda", dtype=torch.float16)
            float_kernel = "gemv_float" if m <= configs.GEMV_ROWS else "gemm_float"
            for kernel, activation in ((float_kernel, None), ("gemm_exact", "int8-row")):
                fits = configs.prune(configs.CONFIGS[kernel], configs.reported(target, "plain").get(kernel, {}), target)

                def call(q=q, x=x, activation=activation):
                    return mf.linear(x, q, activation=activation, backend="triton")

                times = {c: measure(call, c) for c in fits if kernel == "gemv_float" or c.block_m < 2 * max(m, 16)}
                best = min(times, key=times.get)
                problem = [kernel, bits, configs.rows_bucket(m), n, k]
                entries.append({"problem": problem, "config": best._asdict(), "time_us": round(times[best], 2)})
                print(*problem, best, f"{times[best]:.1f} us", file=sys.stderr)
    return entries


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", default=["4096x4096", "4096x14336", "8192x8192"], help="N x K")
    parser.add_argument("--rows", nargs="+", type=int, default=[1, 4, 16, 64, 256, 4096])
    parser.add_argument("--bits", nargs="+", type=int, default=list(range(1, 9)))
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("tune: this needs a GPU, and torch sees none")
    from ...ops.triton import _gpu

    gpu, target = _gpu(torch.device("cuda", torch.cuda.current_device()))
    entries = []
    for problem in arguments.problems:
        n, k = map(int, problem.split("x"))
        entries += tune(n, k, arguments.rows, arguments.bits, target)
    path = configs.HERE / "tuned" / configs.file_name(gpu)
    path.parent.mkdir(exist_ok=True)
    lines = ",\n".join(json.dumps(e) for e in entries)
    path.write_text(f'{{"gpu": "{gpu}", "triton": "{triton.__version__}", "entries": [\n{lines}\n]}}\n')
    print(f"wrote {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
