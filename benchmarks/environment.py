"""What must be set before torch is loaded, and what a result must say about the machine it came from.

Imports the standard library only, so that it can run first.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import datetime
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
# `make bench-peers` installs here and not among our own requirements, so that no peer can change them.
PEERS = Path(os.environ.get("MINIFLOAT_PEERS", ROOT / ".venv" / "peers"))

# How long an idle OpenMP thread spins before it sleeps. The default, 300000, stalls every barrier for milliseconds when
# another process holds the core of the thread that is waited for; 0 pays a wake-up for every parallel region. 2000 is
# some 0.13 ms: longer than the gap between two calls. Measured on a shared core, a layer of 0.016 ms had a median of
# 0.57 ms at 10000, 0.017 at 2000 and 0.047 at 300.
SPIN_COUNT = "2000"
# PyTorch's own kernels, MKL, oneDNN and fbgemm each have a switch, read once, when the library is loaded. Without
# --peer-isa they use all that the CPU has, whatever --isa says of ours. ONNX Runtime and bitsandbytes have no switch.
PEER_ISA = {
    "native": {},
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
    },
}
# What decides how fast these kernels can be.
FLAGS = ("avx2", "avx_vnni", "avx512f", "avx512bw", "avx512vbmi", "avx512_vnni", "avx512_bf16", "amx_int8")
PACKAGES = ("torch", "numpy", "onnxruntime", "onnx", "llama-cpp-python", "ik-llama-cpp-python", "bitsandbytes")


def prepare(peer_isa: str = "native") -> None:
    """Set the environment of this process and make the peers importable.

    Raises:
        RuntimeError: torch is loaded already, so that the settings would come too late.
    """
    if "torch" in sys.modules:
        raise RuntimeError("benchmarks: prepare() must run before torch is imported")
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN_COUNT)
    os.environ.setdefault("GGML_NO_BACKTRACE", "1")  # where ggml aborts it would start a debugger
    os.environ.update(PEER_ISA[peer_isa])
    for path in (ROOT / "python", PEERS):
        if str(path) not in sys.path:
            sys.path.append(str(path))


def llama_folder() -> Path:
    """llama.cpp's ggml fixes its instruction set when it is built: `make bench-peers` builds it twice."""
    return PEERS / "llama_cpp" / ("lib-avx2" if peers_are_restricted() else "lib")


def peers_are_restricted() -> bool:
    """Whether this process was prepared with --peer-isa avx2, on a CPU that has more."""
    return os.environ.get("ATEN_CPU_CAPABILITY") == "avx2" and "avx512f" in cpu_flags()


def argument(name: str, default: str, argv: list[str] | None = None) -> str:
    """The value of `--name` on the command line, before any parser of it exists."""
    argv = sys.argv if argv is None else argv
    for i, word in enumerate(argv):
        if word.startswith(name + "="):
            return word.split("=", 1)[1]
        if word == name and i + 1 < len(argv):
            return argv[i + 1]
    return default


def cpu_model() -> str:
    """As the kernel names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cpu_flags() -> set[str]:
    """What instruction sets this CPU offers, as in /proc/cpuinfo."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line.split(":", 1)[1].split() for line in lines if line.startswith("flags")), []))


def describe(options) -> dict:
    """Everything a reader needs to judge or repeat the run."""
    import torch

    import minifloat as mf

    flags = cpu_flags()
    return {
        "date": datetime.now().isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "flags": [flag for flag in FLAGS if flag in flags],
        "isa": mf.ops.isa(),
        "torch_isa": torch.backends.cpu.get_cpu_capability(),
        "peer_isa": options.peer_isa,
        "load_at_start": round(os.getloadavg()[0], 2),
        "versions": versions(),
        "commit": commit(),
        "spin_count": os.environ.get("GOMP_SPINCOUNT"),
        "copies_mb": options.copies_mb,
    }


def versions() -> dict[str, str]:
    """Of Python and of every installed package that takes part."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    built = PEERS / "llama_cpp" / "built"  # from source, so without metadata
    if built.exists():
        name, _, version = built.read_text().splitlines()[0].partition("==")
        found[name] = version
    return found


def commit() -> str:
    """The commit of the working tree; "+" if tracked files differ from it."""
    try:
        return git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def git(*arguments: str) -> str:
    ran = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    return ran.stdout.strip()
