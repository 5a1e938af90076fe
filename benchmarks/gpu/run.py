"""One command for a machine with a GPU: builds the extension, tests both backends, measures them beside their peers.

Stops with a message and a non-zero exit status at the first stage that fails, and where there is no GPU. --keep-going
goes on to measure the routes whose tests passed. Every stage has a limit of time, and all of them one together. Where
the CUDA kernels cannot be built (no nvcc, or torch is for ROCm) their stages are skipped, and Triton's are run.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import shutil
import sys
import sysconfig
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from . import cases, groups
from .process import ROOT, environment, run

# In the order in which they run: the seconds kept for each. What a stage leaves goes to the next ones.
# cuda and triton are the tests of these backends.
TUNE = "minifloat.kernels.triton.tune"
STAGES = {"build": 150, "cuda": 60, "triton": 55, "tune": 40, "bench": 115, "sanitizer": 60}
BUDGET = sum(STAGES.values())
SANITIZERS = ("memcheck", "racecheck")
# Of compute-sanitizer, about itself: "Error: Device not supported. ...". Some sandboxes give it no GPU that it knows.
UNSUPPORTED = re.compile(r"^={9} .*(?:not supported|insufficient (?:permissions|privileges)).*$", re.I | re.M)
LEAST = {"tune": 20, "sanitizer": 20}  # seconds without which these are not begun


class Skipped(Exception):
    """A stage has nothing to do here; the message says why."""


class OutOfTime(Exception):
    """A stage found nothing wrong, and did not come to its end."""


def gpu_problem() -> str | None:
    """Why nothing can run here, or None."""
    import setuptools
    import torch

    if not (torch.version.cuda or torch.version.hip):
        return f"torch {torch.__version__} was built without CUDA: run with PYTHON=/path/to/a/python whose torch has it"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "no Python.h: the extension cannot be built"
    if int(setuptools.__version__.split(".")[0]) < 77:
        return f"setuptools {setuptools.__version__} cannot read pyproject.toml's license; 77 can"
    return None


def cuda_problem() -> str | None:
    """Why the CUDA kernels cannot be built for this GPU, or None. Triton's need neither nvcc nor CUDA."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not torch.version.cuda:
        return f"torch {torch.__version__} is for ROCm"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"{torch.cuda.get_device_name()} has compute capability {capability}; they need (8, 0)"
    if not CUDA_HOME or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        return "no nvcc"
    return None


def cuda_state() -> str:
    """Of the extension as it is built now: ops.cuda.state()."""
    code, output = run([sys.executable, "-c", "from minifloat.ops import cuda; print(cuda.state())"], 60)
    return output.strip().splitlines()[-1] if code == 0 else f"not to be loaded: {output[-1000:]}"


def without_cuda() -> str | None:
    """What is wrong with the CUDA kernels that should be there, or None. Raises Skipped where they cannot be."""
    state = cuda_state()
    if state.startswith("available"):
        return None
    if problem := cuda_problem():
        raise Skipped(f"no CUDA kernels: {problem}")
    return f"the CUDA backend is {state}"


def without_triton() -> None:
    if importlib.util.find_spec("triton") is None:
        raise Skipped("Triton is not installed: pip install triton")


def architecture() -> str:
    """Code for this GPU alone: the others' would take two thirds of the compiler's time."""
    import torch

    capability = torch.cuda.get_device_capability()
    return "sm_90a" if capability == (9, 0) else "sm_80" if capability[0] == 8 else "compute_80"


def stem() -> str:
    import torch

    name = re.sub(r"[^a-z0-9]+", "-", torch.cuda.get_device_name().lower()).strip("-")
    return f"{name}-{date.today().isoformat()}"


class Stages:
    """Runs stages within their limits and tells how each ended and how long it took."""

    def __init__(self, names: Sequence[str], budget: float):
        share = budget / max(1, sum(STAGES[name] for name in names))
        self.kept = {name: STAGES[name] * share for name in STAGES if name in names}
        self.end = time.monotonic() + budget
        self.ends: dict[str, str] = {}

    def limit(self, name: str) -> float:
        """What is left, less what is kept for the stages that follow."""
        names = list(self.kept)
        later = sum(self.kept[other] for other in names[names.index(name) + 1 :])
        return max(1.0, self.end - time.monotonic() - later)

    def run(self, name: str, stage) -> bool:
        """stage(seconds) returns what went wrong, or None, or raises Skipped or OutOfTime. False only if it failed."""
        seconds, start, problem = self.limit(name), time.monotonic(), None
        print(f"== {name}: at most {seconds:.0f} s", flush=True)
        try:
            if seconds < LEAST.get(name, 0):
                raise Skipped(f"{seconds:.0f} s are left, it takes {LEAST[name]}: raise --budget")
            problem = stage(seconds)
            end = "ok" if problem is None else f"FAILED ({problem})"
        except Skipped as why:
            end = f"skipped ({why})"
        except OutOfTime as why:
            end = f"INCOMPLETE ({why})"
        self.ends[name] = f"{end}, {time.monotonic() - start:.0f} s"
        print(f"== {name}: {self.ends[name]}", flush=True)
        return problem is None


def build(seconds: float) -> str | None:
    jobs = str(min(16, os.cpu_count() or 2))
    if shutil.which("ninja", path=environment()["PATH"]) is None:
        print("== build: there is no ninja, so files are compiled one after another, for many minutes", flush=True)
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    # What the compiler is spared, the next plain build makes up for.
    (ROOT / "build" / "built").unlink(missing_ok=True)
    less = {"MINIFLOAT_CPU": "scalar"}
    if problem := cuda_problem():
        print(f"== build: without the CUDA kernels: {problem}", flush=True)
        less["MINIFLOAT_CUDA"] = "0"
    else:
        less["MINIFLOAT_CUDA_ARCHITECTURES"] = architecture()
    code, output = run(command, seconds, MAX_JOBS=jobs, **less)
    if code == 0:
        return None
    errors = [line for line in output.splitlines() if re.search(r"error|undefined|FAILED", line)]
    print("\n".join([line[:400] for line in errors[:20]] + ["...", output[-3000:]]), flush=True)
    return f"exit status {code}" if isinstance(code, int) else code


def test(seconds: float, backend: str, file: Path, results: dict) -> str | None:
    end, cores = time.monotonic() + seconds, os.cpu_count() or 2
    if importlib.util.find_spec("pytest") is None:
        raise Skipped("pytest is not installed; the benchmark still checks what it measures")
    problem = without_cuda() if backend == "cuda" else without_triton()
    if problem:
        return problem
    try:
        found = groups.collect(backend)
    except RuntimeError as error:
        return str(error)
    jobs = max(2, min(8, cores // 2)) if backend == "cuda" else max(2, min(16, cores))  # compiling takes cores
    results |= groups.run_groups(found, end - time.monotonic() - 5, jobs, file, groups.SUITES[backend].seconds)
    print(groups.summary(results), flush=True)
    failed, bad = groups.failed_routes(results), groups.not_passed(results)
    if failed:
        return f"{len(failed)} of {len(results)} groups"
    if bad:
        raise OutOfTime(f"no time for {len(bad)} of {len(results)} groups")
    return None


def tune(seconds: float) -> str | None:
    """Each problem's best tile shapes are saved, and said, before the next is begun."""
    without_triton()
    code, _ = run([sys.executable, "-m", TUNE, *tune_arguments(seconds)], seconds, show=True)
    if str(code).startswith("stopped"):
        raise OutOfTime(f"{code}; what is said to be saved is")
    return None if code == 0 else f"exit status {code}" if isinstance(code, int) else code


def tune_arguments(seconds: float) -> list[str]:
    """It ends a problem late, and has to start first: a quarter of the time is kept for that."""
    shapes = [f"{n}x{k}" for n, k in cases.SHAPES]
    return ["--seconds", str(int(0.75 * seconds)), "--types", "float16", "--problems", *shapes]


def sanitize(seconds: float, results: dict) -> str | None:
    """The first failing test of groups that did more than return wrong numbers, or else small cases of every kernel."""
    from torch.utils.cpp_extension import CUDA_HOME

    if problem := without_cuda():
        return problem
    folders = [environment()["PATH"], f"{CUDA_HOME}/bin", "/usr/local/cuda/bin"]
    tool, end, bad = shutil.which("compute-sanitizer", path=os.pathsep.join(folders)), time.monotonic() + seconds, []
    if tool is None or importlib.util.find_spec("pytest") is None:
        raise Skipped("compute-sanitizer or pytest is not installed")
    broken = [r["failures"][0] for r in results.values() if r["failures"] and "CUDA error" in " ".join(r["failures"])]
    tests = [re.match(r"\w+ (\S+)", line)[1] for line in broken[:3]] or [
        *groups.SUITES["cuda"].paths,
        "-k",
        "sanitized",
    ]
    late, unsupported = [], []
    for left, check in zip((2, 1), SANITIZERS, strict=True):
        # PyTorch's allocator would hide accesses beyond a tensor inside its own larger blocks.
        command = [tool, f"--tool={check}", "--error-exitcode=1", *groups.PYTEST, "-x", *tests]
        code, output = run(command, max(1.0, (end - time.monotonic()) / left), PYTORCH_NO_CUDA_MEMORY_CACHING="1")
        refused = UNSUPPORTED.search(output)
        if refused and not re.search(r"ERROR SUMMARY: [1-9]", output):
            unsupported.append(f"{check}: {refused[0].strip('= ')[:200]}")
            continue
        print(f"{check}: {'ok' if code == 0 else code}", flush=True)
        if code:
            (late if str(code).startswith("stopped") else bad).append(f"{check}: {code}")
            found = [line for line in output.splitlines() if line.startswith("=====")]
            print("\n".join(found[:40] or [output[-1500:]]), flush=True)
    if bad:
        return ", ".join(bad)
    if late:
        raise OutOfTime(", ".join(late))
    if unsupported:
        raise Skipped(", ".join(unsupported))
    return None


def bench(seconds: float, out: Path, full: bool, results: Path | None) -> str | None:
    # Less than it has, for it starts, measures the memory's rate and draws a plot too.
    least = max(1, int(seconds - 20))
    command = [sys.executable, "-m", "benchmarks.gpu.bench", "--seconds", str(least), "--out", str(out)]
    command += ["--full"] * full + (["--tests", str(results)] if results else [])
    code, _ = run(command, seconds, show=True)
    return None if code == 0 else str(code)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--skip", nargs="*", default=[], choices=list(STAGES))
    parser.add_argument("--full", action="store_true", help="measure every format, not only the main ones")
    parser.add_argument(
        "--keep-going", action="store_true", help="after failing tests too, measure the routes that passed"
    )
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for everything (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results", help="where results are written")
    arguments = parser.parse_args()
    problem = gpu_problem()
    if problem:
        sys.exit(f"make gpu: nothing was built, tested or measured: {problem}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    out = arguments.out.resolve()
    results, file = {}, out / f"{stem()}-tests.json"
    triton_file = out / f"{stem()}-triton-tests.json"
    names = [name for name in STAGES if name not in arguments.skip]
    stages = Stages(names, arguments.budget)
    actions = {
        "build": build,
        "cuda": lambda seconds: test(seconds, "cuda", file, results),
        "triton": lambda seconds: test(seconds, "triton", triton_file, {}),
        "tune": tune,
        "bench": lambda seconds: bench(seconds, out, arguments.full, file if results else None),
        "sanitizer": lambda seconds: sanitize(seconds, results),
    }
    for name in names:
        ok = stages.run(name, actions[name])
        if not ok and (name == "build" or not arguments.keep_going):
            break
    print("== " + "; ".join(f"{name} {end}" for name, end in stages.ends.items()), flush=True)
    sys.exit(any(end.startswith(("FAILED", "INCOMPLETE")) for end in stages.ends.values()))


if __name__ == "__main__":
    main()
