"""What a reader needs to compare times: versions, CPU, instruction set, threads."""

import platform
from importlib.metadata import PackageNotFoundError, version

import torch

import minifloat as mf


def describe() -> dict:
    """Return the machine and the versions as JSON-ready values."""
    return {
        "cpu": _cpu_name(),
        "isa": mf.ops.isa(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **{name: _version(name) for name in ("minifloat", "torch", "transformers", "numpy")},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # minifloat itself, when it runs from its source tree
        return "not installed"


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
