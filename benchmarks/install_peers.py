"""Installs the libraries of requirements-bench.txt beside ours, in a folder of their own: `make bench-peers`.

pip's --target keeps them out of our environment, so no peer can bring another torch or numpy. llama.cpp's ggml is
compiled (some ten minutes); everything else comes as a wheel. What cannot be installed is said and left out.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.environment import PEERS, cpu_model  # noqa: E402

PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
BUILD = ["-DCMAKE_BUILD_TYPE=Release", "-DBUILD_SHARED_LIBS=ON", "-DLLAMA_CURL=OFF"]
BUILD += ["-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON", "-DCMAKE_INSTALL_RPATH=$ORIGIN"]
BUILD += [f"-DLLAMA_BUILD_{part}=OFF" for part in ("TESTS", "EXAMPLES", "TOOLS", "SERVER", "COMMON")]
AVX2 = ["-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2"))]
VARIANTS = {"lib": ["-DGGML_NATIVE=ON"], "lib-avx2": AVX2}


def requirements() -> list[str]:
    lines = (ROOT / "requirements-bench.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def install_wheels(pins: list[str]) -> list[str]:
    """One by one, so that a package without a wheel for this machine costs only itself; returns what failed."""
    failed = []
    for pin in pins:
        ran = subprocess.run([*PIP, "install", "-q", "--no-deps", "--upgrade", "--target", str(PEERS), pin])
        failed += [pin] if ran.returncode else []
    return failed


def build_llama(pin: str) -> None:
    """Compile ggml out of llama-cpp-python's source, for every variant."""
    target = PEERS / "llama_cpp"
    stamp, wanted = target / "built", f"{pin}\n{cpu_model()}\n"
    if stamp.exists() and stamp.read_text() == wanted:
        return
    if not shutil.which("cmake"):
        raise FileNotFoundError("cmake is not installed")
    with tempfile.TemporaryDirectory() as folder:
        download = [*PIP, "download", "-q", "--no-deps", "--no-binary", pin.split("==")[0], "-d", folder, pin]
        subprocess.run(download, check=True)
        with tarfile.open(next(Path(folder).glob("*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
        source = next(Path(folder).glob("*/vendor/llama.cpp"))
        for name, flags in VARIANTS.items():
            build_ggml(source, Path(folder) / name, flags, target / name)
    stamp.write_text(wanted)


def build_ggml(source: Path, build: Path, flags: list[str], target: Path) -> None:
    subprocess.run(["cmake", "-S", str(source), "-B", str(build), *BUILD, *flags], check=True)
    jobs = str(os.cpu_count() or 1)
    compile_it = ["cmake", "--build", str(build), "-j", jobs, "--target", "ggml-base", "ggml-cpu"]
    subprocess.run(["nice", "-n", "10", *compile_it], check=True)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in (build / "bin").glob("libggml-*.so*"):
        shutil.copy(file, target / file.name)


def main() -> int:
    pins = requirements()
    llama = next(pin for pin in pins if pin.startswith("llama-cpp-python"))
    failed = install_wheels([pin for pin in pins if pin != llama])
    try:
        build_llama(llama)
    except (OSError, subprocess.CalledProcessError, StopIteration) as reason:
        failed.append(f"{llama} ({reason})")
    for pin in failed:
        print(f"bench-peers: left out {pin}; the benchmarks skip it")
    print(f"bench-peers: {len(pins) - len(failed)} of {len(pins)} packages are in {PEERS}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
