"""Simulation from Python: designs are verilated into one shared library and driven by numpy batches."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from . import tools
from .assets import asset
from .module import Module, Port

OPTIMIZE = "-O1"  # higher levels take longer to compile than the tests take to run
KEPT_BENCHES = 64


class Bench:
    """Modules side by side under one clock, each with its own inputs.

    Args:
        modules: the top of each design; every one has a clk_i.
        sources: SystemVerilog text of what they instantiate.
        files: name -> text of what they read with $readmemh.
    Raises:
        tools.MissingTool: Verilator or a C++ compiler is missing.
    """

    def __init__(self, modules: list[Module], sources: list[str] | None = None, files: dict[str, str] | None = None):
        self.modules = modules
        self.inputs, self.in_words = _layout(modules, "input")
        self.outputs, self.out_words = _layout(modules, "output")
        text = "\n".join([*(sources or []), *(m.render() for m in modules), self._wrapper()])
        self._library = _load(_build(text, files or {}))
        self._handle = self._library.minifloat_open()

    def close(self) -> None:
        if self._handle:
            self._library.minifloat_close(self._handle)
            self._handle = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def run(self, drive: dict[str, dict[str, np.ndarray]], beats: int) -> np.ndarray:
        """Clock the designs `beats` times.

        Args:
            drive: module name -> port -> (beats,) values below 2**32 or (beats, words) uint32, or one value for all
                beats. Inputs left out are 0.
        Returns:
            (beats, words) uint32: every output after each clock; `output` takes a port out of it.
        """
        stimulus = np.zeros((beats, self.in_words), dtype=np.uint32)
        for module, ports in drive.items():
            for port, values in ports.items():
                start, words = self.inputs[module, port]
                values = np.asarray(values)
                stimulus[:, start : start + words] = values if values.ndim == 2 else values.reshape(-1, 1)
        result = np.empty((beats, self.out_words), dtype=np.uint32)
        self._library.minifloat_run(self._handle, _pointer(stimulus), _pointer(result), beats)
        return result

    @property
    def raw(self) -> tuple[ctypes.CDLL, int]:
        """The library and the handle of the running design, for other ways to drive it."""
        return self._library, self._handle

    def output(self, result: np.ndarray, module: str, port: str) -> np.ndarray:
        """(beats, words) uint32 of one output port, lowest word first."""
        start, words = self.outputs[module, port]
        return result[:, start : start + words]

    def _wrapper(self) -> str:
        top = Module("bench", [])
        top.input("clk_i")
        top.input("in_i", max(32 * self.in_words, 96))  # wider than 64 bits: always an array of words
        top.output("out_o", max(32 * self.out_words, 96))
        for m in self.modules:
            pins = {}
            for p in m.ports:
                if p.name == "clk_i":
                    pins[p.name] = "clk_i"
                elif p.direction == "input":
                    pins[p.name] = _slice("in_i", self.inputs[m.name, p.name][0], p)
                else:
                    pins[p.name] = _slice("out_o", self.outputs[m.name, p.name][0], p)
            top.instance(m.name, f"u_{m.name}", pins)
        return top.render()


def words_of(values, bits: int) -> np.ndarray:
    """(n,) integers of any size, taken modulo 2**bits -> (n, words) uint32, lowest word first."""
    count = -(-bits // 32)
    values = np.asarray(values)
    if values.dtype != object and count <= 2:
        wide = values.astype(np.int64).view(np.uint64) & np.uint64((1 << bits) - 1)
        return np.stack([(wide >> np.uint64(32 * i)).astype(np.uint32) for i in range(count)], axis=1)
    wide = values.astype(object) & ((1 << bits) - 1)
    return np.stack([((wide >> 32 * i) & 0xFFFFFFFF).astype(np.uint32) for i in range(count)], axis=1)


def integers_of(words: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """The inverse of words_of: (n, words) uint32 -> (n,) int64, or Python integers where 63 bits do not suffice."""
    kind = np.int64 if bits < 64 else object
    total = np.zeros(len(words), dtype=kind)
    for i in range(words.shape[1]):
        total = total + (words[:, i].astype(kind) << (32 * i))
    return np.where(total >= 1 << (bits - 1), total - (1 << bits), total) if signed else total


def _layout(modules: list[Module], direction: str) -> tuple[dict[tuple[str, str], tuple[int, int]], int]:
    """Where each port starts and how many words it takes; at least three words in all."""
    places, used = {}, 0
    for m in modules:
        for p in m.ports:
            if p.direction == direction and p.name != "clk_i":
                places[m.name, p.name] = (used, -(-p.bits // 32))
                used += -(-p.bits // 32)
    return places, max(used, 3)


def _slice(name: str, word: int, port: Port) -> str:
    low = 32 * word
    return f"{name}[{low + port.bits - 1}:{low}]" if port.bits > 1 else f"{name}[{low}]"


def _pointer(array: np.ndarray):
    return array.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32))


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.minifloat_open.restype = ctypes.c_void_p
    library.minifloat_close.argtypes = [ctypes.c_void_p]
    words = ctypes.POINTER(ctypes.c_uint32)
    library.minifloat_run.argtypes = [ctypes.c_void_p, words, words, ctypes.c_size_t]
    library.minifloat_stream.restype = ctypes.c_uint64
    return library


def _build(text: str, files: dict[str, str]) -> Path:
    """Verilate and compile a bench, once for each text. Its $readmemh files stay beside it."""
    command, env = tools.verilator()
    driver = asset("driver.cpp")
    parts = [text, driver.read_text(), OPTIMIZE, *command, *(part for pair in files.items() for part in pair)]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    target = tools.cache_folder("rtl") / key / "bench.so"
    target.parent.mkdir(exist_ok=True)
    with open(target.parent / "lock", "w") as lock:  # of several processes that want the same bench one builds it
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            os.utime(target)
        else:
            _compile(target, text, files, driver, command, env)
            _forget_oldest(target.parent.parent)
    return target


def _compile(
    target: Path, text: str, files: dict[str, str], driver: Path, command: list[str], env: dict[str, str]
) -> None:
    root, cxx, folder = tools.verilator_root(), tools.compiler(), target.parent
    runtime = _runtime(folder.parent, root, cxx)
    for name, content in files.items():
        (folder / name).write_text(content)
        text = text.replace(f'"{name}"', f'"{folder / name}"')
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        place = Path(scratch)
        (place / "bench.sv").write_text(text)
        verilate = ["--cc", "--top-module", "bench", "--prefix", "Vbench", "--Mdir", "v", "-O3", "--x-assign", "fast"]
        tools.run([*command, *verilate, "-Wno-fatal", "-Wno-WIDTH", "-Wno-UNOPTFLAT", "bench.sv"], place, env)
        generated = sorted(str(p) for p in (place / "v").glob("*.cpp"))
        include = ["-I", str(root / "include"), "-I", str(root / "include" / "vltstd"), "-I", "v"]
        flags = ["-std=c++20", OPTIMIZE, "-fPIC", "-w", "-shared"]
        tools.run([cxx, *flags, *include, str(driver), *generated, *runtime, "-o", "bench.so", "-pthread"], place)
        os.replace(place / "bench.so", target)


def _forget_oldest(folder: Path) -> None:
    """Keep the KEPT_BENCHES that were used last."""
    built = sorted(folder.glob("*/bench.so"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in built[KEPT_BENCHES:]:
        shutil.rmtree(path.parent, ignore_errors=True)


def _runtime(folder: Path, root: Path, cxx: str) -> list[str]:
    """Verilator's own runtime, compiled once."""
    objects = []
    for name in ("verilated", "verilated_threads"):
        source = root / "include" / f"{name}.cpp"
        key = hashlib.sha256(source.read_bytes() + str(root).encode()).hexdigest()[:16]
        target = folder / f"{name}_{key}.o"
        if not target.exists():
            scratch = folder / f"{name}_{os.getpid()}.o"
            include = ["-I", str(root / "include"), "-I", str(root / "include" / "vltstd")]
            tools.run([cxx, "-std=c++20", "-O2", "-fPIC", "-w", "-c", *include, str(source), "-o", str(scratch)])
            os.replace(scratch, target)
        objects.append(str(target))
    return objects
