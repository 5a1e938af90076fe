"""One command for a machine with a GPU: builds the extension, tests it there, then measures it beside its peers.

Stops with a message and a non-zero exit status at the first stage that fails, and where there is no GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SANITIZERS = ("memcheck", "racecheck")


def gpu_problem() -> str | None:
    """Why nothing can run here, or None."""
    import torch
    from torch.utils.cpp_extension import CUDA_HOME

    if not torch.version.cuda:
        return f"torch {torch.__version__} was built without CUDA: run with PYTHON=/path/to/a/python whose torch has it"
    if not torch.cuda.is_available():
        return "torch sees no GPU"
    capability = torch.cuda.get_device_capability()
    if capability < (8, 0):
        return f"{torch.cuda.get_device_name()} has compute capability {capability}; the kernels need (8, 0)"
    if not CUDA_HOME or not (Path(CUDA_HOME) / "bin" / "nvcc").exists():
        return "no nvcc: the kernels cannot be built"
    return None


def search_path() -> str:
    """The interpreter's own folder first: torch looks for ninja on the path, and no environment may be activated."""
    return os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH"))))


def stage(name: str, command: list[str], **environment: str) -> None:
    """Run a command with the package on its path; end this program if it fails."""
    path = os.pathsep.join(filter(None, (str(ROOT / "python"), os.environ.get("PYTHONPATH"))))
    environment |= {"PYTHONPATH": path, "PATH": search_path()}
    print(f"== {name}: {' '.join(command)}", flush=True)
    start = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment})
    print(f"== {name}: {'ok' if done.returncode == 0 else 'FAILED'}, {time.perf_counter() - start:.0f} s", flush=True)
    if done.returncode:
        sys.exit(done.returncode)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--skip", nargs="*", default=[], choices=["build", "test", "sanitizer", "bench"])
    parser.add_argument("--full", action="store_true", help="measure every format and shape, not only the main ones")
    arguments = parser.parse_args()
    problem = gpu_problem()
    if problem:
        sys.exit(f"make gpu: nothing was built, tested or measured: {problem}")
    python = sys.executable
    if "build" not in arguments.skip:
        jobs = str(min(16, os.cpu_count() or 2))
        if shutil.which("ninja", path=search_path()) is None:
            print("== build: there is no ninja, so files are compiled one after another, for many minutes", flush=True)
        stage("build", [python, "setup.py", "-q", "build_ext", "--inplace"], MAX_JOBS=jobs)
    if "test" not in arguments.skip:
        stage("test", [python, "-m", "pytest", "-q", "tests/cuda/gpu"])
    if "sanitizer" not in arguments.skip:
        tool = shutil.which("compute-sanitizer")
        if tool is None:
            print("== sanitizer: skipped, compute-sanitizer is not installed", flush=True)
        for check in SANITIZERS if tool else ():
            tests = [python, "-m", "pytest", "-q", "-x", "tests/cuda/gpu", "-k", "sanitized"]
            # PyTorch's allocator would hide accesses beyond a tensor inside its own larger blocks.
            stage(check, [tool, f"--tool={check}", "--error-exitcode=1", *tests], PYTORCH_NO_CUDA_MEMORY_CACHING="1")
    if "bench" not in arguments.skip:
        stage("bench", [python, "-m", "benchmarks.gpu.bench", *(["--full"] if arguments.full else [])])


if __name__ == "__main__":
    main()
