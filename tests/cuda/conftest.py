"""The CUDA kernels on the CPU: compiled by g++ with tests/cuda/shim in place of CUDA, and called through ctypes."""

import ctypes
import fcntl
import hashlib
import mmap
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import minifloat as mf
from minifloat.ops.fakes import plan_fields
from minifloat.ops.records import plan_record

ROOT = Path(__file__).resolve().parents[2]
SHIM = ROOT / "tests" / "cuda" / "shim"
FLAGS = ["-std=c++20", "-O1", "-g0", "-Wall", "-Wno-unknown-pragmas", "-Wno-maybe-uninitialized", "-fPIC"]
FLAGS += ["-ffp-contract=off", "-DMINIFLOAT_SHIM", f"-I{SHIM}", f"-I{ROOT / 'kernels'}"]
TYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2, torch.float8_e4m3fn: 3}


def _compile(source: Path, target: Path) -> None:
    command = [os.environ.get("CXX", "g++"), "-x", "c++", *FLAGS, "-c", str(source), "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and not done.stderr, f"{source.name}: {done.stderr}"


def _build() -> Path:
    """One library for the sources as they are; workers that come second wait for the first."""
    sources = [*sorted((ROOT / "kernels/cuda").glob("*.c[up]*")), *sorted(SHIM.glob("*.cpp"))]
    sources = [path for path in sources if path.suffix in (".cu", ".cpp")]
    headers = [*sorted((ROOT / "kernels/cuda").glob("*.*h")), *sorted(SHIM.glob("*.h")), ROOT / "kernels/cpu/plan.h"]
    digest = hashlib.sha256(repr(FLAGS).encode())
    for path in [*sources, *headers]:
        digest.update(path.name.encode() + path.read_bytes())
    folder = ROOT / "build" / "cuda_shim"
    library = folder / f"shim-{digest.hexdigest()[:16]}.so"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if library.exists():
            return library
        for old in folder.glob("*.so"):
            old.unlink()
        objects = [folder / f"{path.name}.o" for path in sources]
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(_compile, sources, objects))
        unfinished = library.with_suffix(".part")
        subprocess.run(["g++", "-shared", "-o", str(unfinished), *map(str, objects)], check=True)
        unfinished.rename(library)
    return library


class Shim:
    """The kernels with tensors in and out."""

    def __init__(self, path: Path):
        self.library = ctypes.CDLL(str(path))
        self.library.mf_layout_bytes.restype = ctypes.c_int64
        self.library.mf_unsupported.restype = ctypes.c_char_p

    def prepare(self, q, activation):
        """(layout, plan), as ops.prepare makes them for another backend."""
        scale = 1.0 if q.tensor_scale is None else float(q.tensor_scale)
        plan = plan_record(q.spec, activation, q.shape, scale)
        weight = _guarded(self.library.mf_layout_bytes(_pointer(plan)))
        weight.fill_(0xA5)
        parts = [None if t is None else _guarded_like(t) for t in (q.packed, q.scale_data, q.zero_points)]
        self._check(self.library.mf_pack(*map(_pointer, (plan, *parts, weight))))
        return weight, plan

    def restore(self, weight, plan, q):
        """Packed codes, scales and zero points of q's shapes, from the layout."""
        parts = [
            None if t is None else _guarded_like(torch.full_like(t, 77))
            for t in (q.packed, q.scale_data, q.zero_points)
        ]
        self._check(self.library.mf_restore(*map(_pointer, (plan, *parts, weight))))
        return parts

    def dequantize(self, weight, plan):
        fields = plan_fields(plan)
        out = _guarded_like(torch.full((int(fields["n"]), int(fields["k"])), float("nan")))
        self._check(self.library.mf_dequantize(*map(_pointer, (plan, weight, out))))
        return out

    def unsupported(self, plan) -> str:
        return self.library.mf_unsupported(_pointer(plan)).decode()

    def multiplies_float8(self, plan, m, capability=90) -> bool:
        return bool(self.library.mf_multiplies_float8(_pointer(plan), ctypes.c_int64(m), capability))

    def route(self, plan, m, dtype, capability=80, prefer="") -> str:
        """ "narrow int8": the kernels that linear would run, and how they multiply."""
        name = ctypes.create_string_buffer(32)
        self.library.mf_route(_pointer(plan), TYPES[dtype], ctypes.c_int64(m), capability, prefer.encode(), name)
        return name.value.decode()

    def columns(self, plan, m, dtype, capability=80) -> int:
        """How many rows of x a block takes."""
        return self.library.mf_columns(_pointer(plan), TYPES[dtype], ctypes.c_int64(m), capability)

    def linear(self, x, weight, plan, bias=None, capability=80, multiprocessors=132, prefer=""):
        """(y, route, math) on a GPU of that compute capability (80 is 8.0) and that many multiprocessors.

        prefer: kernels to use where they can be (parse_preference in kernels/cuda/job.cpp).

        y is None where the route is to dequantize and multiply elsewhere.
        """
        n = int(plan_fields(plan)["n"])
        rows = _guarded_like(x)
        y_type = torch.bfloat16 if x.dtype is torch.float8_e4m3fn else x.dtype
        y = _guarded_like(torch.full((x.shape[0], n), float("nan"), dtype=y_type))
        bias = None if bias is None else _guarded_like(bias.float())
        name = ctypes.create_string_buffer(32)
        code = self.library.mf_linear(
            _pointer(plan),
            _pointer(weight),
            _pointer(rows),
            TYPES[x.dtype],
            ctypes.c_int64(x.shape[0]),
            _pointer(bias),
            _pointer(y),
            capability,
            multiprocessors,
            prefer.encode(),
            name,
        )
        route, math = name.value.decode().split()
        if code == -1:
            return None, route, math
        self._check(code)
        return y, route, math

    def reverse(self, on: bool) -> None:
        """Whether a block's threads take their turns from the last to the first."""
        self.library.shim_reverse(int(on))

    @staticmethod
    def _check(code: int) -> None:
        assert code == 0, f"launcher returned error {code}"


def _pointer(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _guarded(count: int) -> torch.Tensor:
    """uint8, aligned to 16, and ending where the process may not read or write: whoever goes beyond is stopped."""
    if count == 0:
        return torch.empty(0, dtype=torch.uint8)
    size = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(-1, size + mmap.PAGESIZE)
    guard = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + size
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(guard), ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return torch.frombuffer(memory, dtype=torch.uint8, count=count, offset=size - -(-count // 16) * 16)


def _guarded_like(x: torch.Tensor) -> torch.Tensor:
    copy = _guarded(x.numel() * x.element_size()).view(x.dtype).reshape(x.shape)
    return copy.copy_(x)


def _make(weight, activation, m, n, k, seed, dtype=torch.float32):
    """(q, x, bias, activation spec), random and repeatable."""
    generator = torch.Generator().manual_seed(seed)
    w = torch.randn(n, k, generator=generator) * torch.rand(n, 1, generator=generator)
    x = torch.randn(m, k, generator=generator) * torch.exp(2 * torch.randn(m, 1, generator=generator))
    activation = None if activation is None else mf.QuantSpec.parse(activation)
    return mf.quantize(w, weight), x.to(dtype), torch.randn(n, generator=generator), activation


@pytest.fixture(scope="session")
def shim():
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        pytest.skip("the CUDA kernels were not run on the CPU: no g++ found")
    return Shim(_build())


@pytest.fixture(params=["forward", "reversed"])
def any_order(request, shim):
    """The shim, with a block's threads taking turns in either order: a missing barrier shows in one of them."""
    shim.reverse(request.param == "reversed")
    yield shim
    shim.reverse(False)


@pytest.fixture(scope="session")
def make():
    return _make


@pytest.fixture(scope="session")
def same_bits():
    def check(got, want):
        assert got.dtype == want.dtype and got.shape == want.shape
        view = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}[got.dtype]
        different = (got.view(view) != want.view(view)) & ~(got.isnan() & want.isnan())
        at = tuple(different.nonzero()[0].tolist()) if different.any() else None
        assert at is None, f"{int(different.sum())} differ, first at {at}: {got[at]} instead of {want[at]}"

    return check
