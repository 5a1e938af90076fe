"""Builds minifloat._C, with CUDA kernels where torch has CUDA and nvcc is there. The rest is in pyproject.toml."""

import os
import shutil
import sys
from pathlib import Path

import torch
from setuptools import setup

# torch takes the folder above the nvcc on the path; where that is a script or a link, CUDA's headers lie elsewhere.
NVCC = shutil.which("nvcc")
HOMES = [Path(NVCC).parents[1], Path(NVCC).resolve().parents[1]] if NVCC else []
for home in (*HOMES, Path("/usr/local/cuda")):
    if (home / "include" / "cuda_runtime.h").exists() and (home / "bin" / "nvcc").exists():
        os.environ.setdefault("CUDA_HOME", str(home))

from torch.utils.cpp_extension import CUDA_HOME, BuildExtension, CppExtension, CUDAExtension  # noqa: E402

# A file that includes torch takes over 1 GB to compile, so a job per core can exhaust a small machine.
os.environ.setdefault("MAX_JOBS", "2")

# MINIFLOAT_CUDA=0 leaves the CUDA kernels out of a build that could have them.
WITH_CUDA = bool(
    torch.version.cuda
    and CUDA_HOME
    and (Path(CUDA_HOME) / "bin" / "nvcc").exists()
    and os.environ.get("MINIFLOAT_CUDA", "1") != "0"
)
# MINIFLOAT_CPU=scalar builds the plain CPU kernels alone, under the others' names too, and does not optimize them: that
# takes the compiler minutes (isa_avx2.cpp five, isa_scalar.cpp two), for which measurements on a GPU need not wait.
WIDER = {"isa_avx2": "kAvx2Kernels", "isa_avxvnni": "kAvxVnniKernels", "isa_avx512vnni": "kAvx512VnniKernels"}
LEFT_OUT = WIDER if os.environ.get("MINIFLOAT_CPU") == "scalar" else {}
# MINIFLOAT_CPU=emulated runs the AVX-512 and AVX-VNNI kernels on any CPU with AVX2, for `make test-emulated`: see
# kernels/cpu/emulated.h. Its vectors are longer than the CPU's, which GCC remarks on at every call.
EMULATED = ["-O1", "-DMINIFLOAT_EMULATED", "-Wno-psabi", "-Wno-ignored-attributes"]
OPTIMIZE = ["-O0"] if LEFT_OUT else EMULATED if os.environ.get("MINIFLOAT_CPU") == "emulated" else ["-O3"]
SOURCE_DIRS = ("csrc", "kernels/cpu", *(("kernels/cuda",) if WITH_CUDA else ()))


def files(*patterns):
    paths = {path for folder in SOURCE_DIRS for pattern in patterns for path in Path(folder).glob(pattern)}
    paths = {path for path in paths if path.stem not in LEFT_OUT and (WITH_CUDA or path != Path("csrc/cuda.cpp"))}
    return sorted(str(path) for path in paths)


class Build(BuildExtension):
    def finalize_options(self):
        super().finalize_options()
        if self.inplace:
            # pip gives an editable build a new temporary folder every time; ninja needs one that stays, and one for
            # each torch because objects built against another version must not be reused.
            self.build_temp = f"build/{sys.implementation.cache_tag}-torch{torch.__version__}"


CXX_FLAGS = [
    "-std=c++20",
    *OPTIMIZE,
    "-g0",
    "-Wall",
    "-fvisibility=hidden",
    # The numeric contract: every float32 step is rounded on its own (docs/numerics.md).
    "-ffp-contract=off",
    "-fno-fast-math",
    # No value depends on these two: floating-point exceptions and errno are not read. Without them rounding to integers
    # is not vectorised, which took 5.7 us for 4096 activations instead of 1.7.
    "-fno-trapping-math",
    "-fno-math-errno",
    # at::parallel_for is an inline OpenMP region: without this it compiles to a plain loop on one thread.
    "-fopenmp",
    *(f"-D{name}=kScalarKernels" for name in LEFT_OUT.values()),
]
# MINIFLOAT_CUDA_ARCHITECTURES=sm_90a leaves out the others' code, where one GPU is meant.
ARCHITECTURES = os.environ.get("MINIFLOAT_CUDA_ARCHITECTURES", "sm_80,sm_90a,compute_80").split(",")
NVCC_FLAGS = [
    "-std=c++20",
    "-O3",
    "-Xcompiler=-fvisibility=hidden",
    # compute_80: PTX, for what is newer than these
    *(f"-gencode=arch={name.replace('sm', 'compute')},code={name}" for name in ARCHITECTURES),
]

extension = (CUDAExtension if WITH_CUDA else CppExtension)(
    "minifloat._C",
    sources=files("*.cpp", "*.cu") if WITH_CUDA else files("*.cpp"),
    depends=files("*.h", "*.cuh"),
    include_dirs=[str(Path("kernels").resolve())],
    extra_compile_args={"cxx": CXX_FLAGS, "nvcc": NVCC_FLAGS},
    extra_link_args=["-fopenmp"],
)

setup(ext_modules=[extension], cmdclass={"build_ext": Build})
