"""Builds minifloat._C. Everything declarative is in pyproject.toml."""

import os
import sys
from pathlib import Path

import torch
from setuptools import setup
from torch.utils.cpp_extension import BuildExtension, CppExtension

# A file that includes torch takes over 1 GB to compile, so a job per core can exhaust a small machine.
os.environ.setdefault("MAX_JOBS", "2")

SOURCE_DIRS = ("csrc", "kernels/cpu")


def files(pattern):
    return sorted(str(path) for folder in SOURCE_DIRS for path in Path(folder).glob(pattern))


class Build(BuildExtension):
    def finalize_options(self):
        super().finalize_options()
        if self.inplace:
            # pip gives an editable build a new temporary folder every time; ninja needs one that stays, and one for
            # each torch because objects built against another version must not be reused.
            self.build_temp = f"build/{sys.implementation.cache_tag}-torch{torch.__version__}"


extension = CppExtension(
    "minifloat._C",
    sources=files("*.cpp"),
    depends=files("*.h"),
    include_dirs=[str(Path("kernels").resolve())],
    extra_compile_args=[
        "-std=c++20",
        "-O3",
        "-g0",
        "-Wall",
        "-fvisibility=hidden",
        # The numeric contract: every float32 step is rounded on its own (docs/numerics.md).
        "-ffp-contract=off",
        "-fno-fast-math",
        # at::parallel_for is an inline OpenMP region: without this it compiles to a plain loop on one thread.
        "-fopenmp",
    ],
    extra_link_args=["-fopenmp"],
)

setup(ext_modules=[extension], cmdclass={"build_ext": Build})
