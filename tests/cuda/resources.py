"""What nvcc makes of the kernels: registers, stack and spills from its report, instructions from the disassembly.

`python tests/cuda/resources.py` writes the table that test_nvcc.py compares with.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = Path(__file__).with_name("resources.json")
SOURCES = sorted((ROOT / "kernels" / "cuda").glob("*.cu"))
ARCHITECTURES = ("sm_80", "sm_90a")
FLAGS = ("-std=c++20", "-O3", "-Xptxas=-v", f"-I{ROOT / 'kernels'}")
MATHS = ("int8", "int16", "float16", "bfloat16", "float32", "float8", "float16x2", "bfloat16x3")


def find_nvcc() -> str | None:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))


def find_nvdisasm() -> str | None:
    """On the path, or the one that triton's wheel brings along."""
    found = shutil.which("nvdisasm")
    if found:
        return found
    for folder in sys.path:
        path = Path(folder) / "triton" / "backends" / "nvidia" / "bin" / "nvdisasm"
        if path.exists():
            return str(path)
    return None


def nvcc_version() -> str:
    text = subprocess.run([find_nvcc(), "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"V([\d.]+)", text)[1]


def compile_report(source: Path, architecture: str) -> dict[str, dict]:
    """{kernel: {"registers", "stack", "spills", "instructions"}} of one file; kept in build/ until a source changes."""
    digest = hashlib.sha256(f"{nvcc_version()} {FLAGS} {architecture} {find_nvdisasm()}".encode())
    for path in sorted(_with_includes(source)):
        digest.update(path.read_bytes())
    folder = ROOT / "build" / "cuda_nvcc"
    folder.mkdir(parents=True, exist_ok=True)
    cached = folder / f"{source.stem}-{architecture}-{digest.hexdigest()[:16]}.json"
    if cached.exists():
        return json.loads(cached.read_text())
    cubin = cached.with_suffix(".cubin")
    target = f"-gencode=arch={architecture.replace('sm', 'compute')},code={architecture}"
    command = [find_nvcc(), *FLAGS, target, "-cubin", "-o", str(cubin), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"nvcc refused {source.name} for {architecture}:\n{done.stderr[-4000:]}")
    report = _parse(done.stderr)
    if find_nvdisasm():
        listing = subprocess.run([find_nvdisasm(), "-c", str(cubin)], capture_output=True, text=True, check=True).stdout
        for name, counts in _instructions(listing).items():
            report[name]["instructions"] = counts
    cubin.unlink()
    cached.write_text(json.dumps(report))
    return report


def _with_includes(source: Path) -> set[Path]:
    """The file and all of ours that it includes."""
    found, waiting = set(), [source]
    while waiting:
        path = waiting.pop()
        found.add(path)
        for name in re.findall(r'#include "([^"]+)"', path.read_text()):
            near, far = path.parent / name, ROOT / "kernels" / name
            waiting += [p for p in (near if near.exists() else far,) if p.exists() and p not in found]
    return found


def _parse(report: str) -> dict[str, dict]:
    kernels = {}
    for block in report.split("Compiling entry function ")[1:]:
        stack, stores, loads = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes", block
        ).groups()
        registers = re.search(r"Used (\d+) registers", block)[1]
        name = kernel_name(re.match(r"'(\w+)'", block)[1])
        kernels[name] = {"registers": int(registers), "stack": int(stack), "spills": int(stores) + int(loads)}
    for mangled in re.findall(r"serialized due to .* in the function '(\w+)'", report):
        kernels[kernel_name(mangled)]["serialized"] = True  # wgmma waits for each product at once
    return kernels


def kernel_name(mangled: str) -> str:
    """linear_narrow<int8, 4> from the mangled name of that instance."""
    name = re.search(
        r"\d+((?:linear|split|tensor|quantize|spread|pack|move|restore|dequantize|decode)_[a-z]+)", mangled
    )[1]
    arguments = re.search(name + r"I(.*?)EEv", mangled)
    if not arguments:
        return name
    values = re.findall(r"L[ib](\d+)E", arguments[1] + "E")
    if name in ("linear_narrow", "linear_wide", "linear_warpgroup", "decode_panels"):
        values[0] = MATHS[int(values[0])]
    if not values:
        values = [{"f": "float", "j": "integer"}[arguments[1]]]
    return f"{name}<{', '.join(values)}>"


def _instructions(listing: str) -> dict[str, Counter]:
    kernels = {}
    for section in re.split(r"\.section\s+\.text\.", listing)[1:]:
        counts = Counter()
        for line in section.splitlines():
            found = re.match(r"\s+/\*[0-9a-f]+\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9.]*)", line)
            if found:
                counts[found[1]] += 1
        kernels[kernel_name(re.match(r"(\w+)", section)[1])] = counts
    return kernels


def table() -> dict:
    """Every kernel's registers and stack, by architecture."""
    kernels = {}
    for architecture in ARCHITECTURES:
        kernels[architecture] = {}
        for source in SOURCES:
            for name, found in compile_report(source, architecture).items():
                kernels[architecture][name] = [found["registers"], found["stack"]]
    return {"nvcc": nvcc_version(), "columns": ["registers", "stack bytes"], "kernels": kernels}


if __name__ == "__main__":
    text = json.dumps(table(), indent=1)
    TABLE.write_text(re.sub(r"\[\s+(\d+),\s+(\d+)\s+\]", r"[\1, \2]", text) + "\n")
