"""Tile shapes: an explicit list, which of them fit a GPU, and the one that is used. Pure functions; needs no Triton.

What is used for a problem: an entry of tuned/<gpu>.json, which `python -m minifloat.kernels.triton.tune` writes on a
GPU, or else `default`, a rule on M, N and K.
"""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
GEMV_ROWS = 2  # up to here rows of x are multiplied one by one
PROGRAMS = 264  # what the default aims at: two for each of 132 multiprocessors
# What one program may use.
SHARED_BYTES = {"sm_80": 166912, "sm_90": 232448, "gfx942": 65536, "sm_100": 232448}
SCALED_TARGETS = ("sm_100",)  # of gemm_scaled, and of nothing else


class Config(NamedTuple):
    """block_n outputs x block_m rows of x per program, K in `split` parts, with so many warps and pipeline stages.

    unroll: chunks of 32 k's in one trip of the loop. 8 is a block, whose bytes are then loaded once; with fewer, a byte
    that holds codes of several chunks is loaded again for each, and the program needs fewer registers.
    """

    block_n: int
    block_m: int
    split: int
    warps: int
    stages: int
    unroll: int = 8

    def __str__(self) -> str:
        tile = f"n{self.block_n} m{self.block_m} split{self.split}"
        return f"{tile} warps{self.warps} stages{self.stages} unroll{self.unroll}"


GEMV = tuple(Config(n, 1, split, warps, 2) for n, warps in ((32, 2), (64, 4)) for split in (1, 4, 8))
GEMM = (
    *(Config(64, 16, split, 4, 3) for split in (1, 4, 8)),
    *(Config(64, 32, split, 4, 3, unroll) for unroll in (8, 2) for split in (1, 4)),
    Config(64, 16, 1, 4, 2),
    *(Config(64, 64, 1, 8, 3, unroll) for unroll in (4, 1)),
    *(Config(n, m, 1, 8, 3, unroll) for n, m in ((64, 128), (128, 64), (128, 128)) for unroll in (4, 1)),
)
GEMM_SCALED = (  # 128 outputs: with fewer there is no block-scaled product on sm_100. A trip is 128 k's.
    *(Config(128, 16, split, 4, 3, 4) for split in (1, 4, 8)),
    *(Config(128, 32, split, 4, 3, 4) for split in (1, 4)),
    *(Config(128, m, 1, 8, stages, 4) for m in (64, 128) for stages in (3, 2)),
)
CONFIGS = {"gemv_float": GEMV, "gemm_float": GEMM, "gemm_exact": GEMM, "gemm_scaled": GEMM_SCALED}


class Gpu(NamedTuple):
    """name: what torch calls it. target: whose compiled resources it is held to; "" for none (the interpreter).

    shared_bytes: what one program may use there, 0 if that is not known. scaled_target: of scaled.target_of.
    """

    name: str
    target: str
    shared_bytes: int = 0
    scaled_target: str = ""


def target_of(capability: tuple[int, int]) -> str:
    """The target whose code is like that for an NVIDIA GPU: 12.x has 8.x's tensor core instructions and not 9.x's."""
    return "sm_90" if 9 <= capability[0] < 12 else "sm_80"


def targets_of(kernel: str) -> tuple[str, ...]:
    """The targets that a kernel is compiled for."""
    is_scaled = kernel == "gemm_scaled"
    return tuple(target for target in SHARED_BYTES if (target in SCALED_TARGETS) == is_scaled)


def prune(configs, reports: dict[str, dict[str, int]], target: str, shared_bytes: int = 0) -> list[Config]:
    """The configs that fit `target`, from what the compiler reported: {str(config): {"shared": .., "spills": ..}}.

    One that was never compiled for the target is left out too.
    shared_bytes: what the GPU has, which can be less than the target's: 101376 on sm_86, sm_89 and sm_120.
    """
    limit, fits = min(SHARED_BYTES[target], shared_bytes or SHARED_BYTES[target]), []
    for config in configs:
        report = reports.get(str(config))
        if report and not report["spills"] and report["shared"] <= limit:
            fits.append(config)
    return fits


class Problem(NamedTuple):
    """What is multiplied: all that decides which config is used.

    kind: of kind_of. x: the type x has, or is multiplied in: "float16".
    group: k's that share a scale, in gemm_exact both scales (operand.Fold.length); 0 for all of K.
    """

    kernel: str
    bits: int
    kind: str
    group: int
    x: str
    m: int
    n: int
    k: int


def split_of(fold_length: int, config: Config) -> int:
    """The parts of K that gemm_exact makes: it splits only where folds end with a block of 256."""
    return config.split if fold_length == 0 or 256 % fold_length == 0 else 1


def splits(problem: Problem, config: Config) -> bool:
    """Whether `config` may split the problem's K: into no more parts than there are blocks of 256.

    gemm_exact scales folds in their order, so a split one leaves the int32 sums of every fold in memory. Writing and
    reading those may cost a quarter of what reading the weight does.
    """
    if config.split == 1:
        return True
    if config.split > -(-problem.k // 256):
        return False
    if problem.kernel != "gemm_exact" or not problem.group:
        return True
    sums_bytes = 8 * (problem.k // problem.group) * problem.m * problem.n  # int32, once out and once in
    weight_bytes = problem.n * problem.k * problem.bits // 8
    return split_of(problem.group, config) == config.split and 4 * sums_bytes <= weight_bytes


def default(problem: Problem, configs=None) -> Config:
    """The config for a problem that nothing was measured for.

    The smallest tile of rows that holds M (or the largest), then the split of K that brings the number of programs
    nearest to PROGRAMS, then the larger tile.
    """
    configs = CONFIGS[problem.kernel] if configs is None else configs
    m, n = problem.m, problem.n
    tall = [c for c in configs if c.block_m >= m] or configs
    height = min(c.block_m for c in tall) if tall is not configs else max(c.block_m for c in configs)
    candidates = [c for c in configs if c.block_m == height]
    candidates = [c for c in candidates if splits(problem, c)] or candidates

    def distance(c: Config) -> tuple[float, int]:
        programs = -(-n // c.block_n) * -(-m // c.block_m) * c.split
        return max(programs, PROGRAMS) / min(programs, PROGRAMS), -c.block_n * c.block_m

    return min(candidates, key=distance)


def bucket_of(problem: Problem) -> Problem:
    """With M rounded up to a power of two, 4096 at most: problems of one bucket share a tuned config."""
    return problem._replace(m=min(1 << max(problem.m - 1, 0).bit_length(), 4096))


def file_name(gpu: str) -> str:
    """ "NVIDIA H100 80GB HBM3" -> "nvidia-h100-80gb-hbm3.json"."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ".json"


@cache
def tuned(gpu: str) -> dict[Problem, Config]:
    """{problem of bucket_of: config} of tuned/<gpu>.json; empty without that file."""
    path = HERE / "tuned" / file_name(gpu)
    if not path.is_file():
        return {}
    entries = json.loads(path.read_text())["entries"]
    return {Problem(**e["problem"]): Config(**e["config"]) for e in entries}


def kind_of(aligned: bool, parts: int = 1) -> str:
    """What decides, besides the config and x's type, what a kernel needs.

    "masked": 32 consecutive k's can have several scales. "parts": one product is several of tensor cores, because a
    value is a sum of several numbers of x's type or a grid integer has two digits.
    """
    return "masked" if not aligned else "plain" if parts < 2 else "parts"


@cache
def reported(target: str, kind: str, x: str) -> dict[str, dict[str, dict[str, int]]]:
    """{kernel: {str(config): report}} for a target, from resources.json: the worst of the formats of this kind.

    x: its type in the float kernels, held to the figures of float16 where nothing was compiled for it. gemm_exact
    multiplies int8 digits whatever it is.
    """
    path = HERE / "resources.json"
    rows = json.loads(path.read_text())["rows"] if path.is_file() else []
    found: dict = {}
    for row in rows:
        if row["target"] == target and row["kind"] == kind and row["kernel"] in CONFIGS:
            of_type = found.setdefault(row["kernel"], {}).setdefault(row["x"], {})
            seen = of_type.setdefault(row["config"], {"shared": 0, "spills": 0})
            for name in seen:
                seen[name] = max(seen[name], row[name])
    return {kernel: types.get(x) or types.get("") or types.get("float16", {}) for kernel, types in found.items()}


def fitting(problem: Problem, gpu: Gpu) -> list[Config]:
    """The configs that fit the GPU; all of them if nothing is known of it."""
    everything = CONFIGS[problem.kernel]
    target = gpu.scaled_target if problem.kernel == "gemm_scaled" else gpu.target
    if not target:
        return list(everything)
    reports = reported(target, problem.kind, problem.x).get(problem.kernel, {})
    return prune(everything, reports, target, gpu.shared_bytes) or list(everything)


@cache
def choose(problem: Problem, gpu: Gpu) -> Config:
    """The config to use."""
    fits = fitting(problem, gpu)
    found = tuned(gpu.name).get(bucket_of(problem))
    return found if found in fits else default(problem, fits)
