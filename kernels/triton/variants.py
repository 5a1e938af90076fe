"""What resources.py compiles ahead of time: every kernel with every config, for formats that differ in their code."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import gemm_exact, gemm_float, gemm_scaled, gemv_float, pack, quantize
from .configs import CONFIGS, HERE, Config, kind_of, split_of, targets_of

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "sm_100": GPUTarget("cuda", 100, 32),
}
X_TYPES = {"float16": "*fp16", "bfloat16": "*bf16", "float32": "*fp32"}
# What the tables, tile loops and digits of the kernels can look like: (weight, activation of the exact kernel, types of
# x in the float kernels, whether with every config or with SOME).
SPECS = (
    ("e2m1-g32-e8m0", "int8-row", ("float16", "bfloat16", "float32"), True),
    ("e3m2-g16-bf16", "int8-g16", ("float16",), True),  # several groups in 32 k's, two digits
    ("uint8-g128-zp", "mxint8", ("float16",), True),
    ("nf4-row", None, ("float16",), True),  # a table, and values that are sums of three numbers
    ("nf4-row", None, ("bfloat16",), False),
    ("int4-row", "int8-row", (), False),  # one fold
    ("e3m2-row", "e3m2-row", (), False),  # two digits on both sides
    ("nvfp4", "nvfp4", (), False),  # two levels of scales on both sides
    ("uint4-g16-zp", "int8-row", (), False),  # zero points of groups that share 32 k's
)
# Of gemm_scaled, and what tl.dot_scaled calls the type of x.
SCALED_SPECS = (
    ("e2m1-g32-e8m0", "e4m3", True),
    ("e2m1-g32-e8m0", "e5m2", False),
    ("e4m3fn-g32-e8m0", "e4m3", True),
    ("e5m2-g64-e8m0", "e5m2", False),
)
SOME = {
    "gemv_float": tuple(Config(n, 1, split, warps, 2) for n, split, warps in ((32, 1, 2), (64, 1, 4), (64, 4, 4))),
    "gemm_float": (
        *(Config(64, 16, split, 4, 3) for split in (1, 4)),
        *(
            Config(n, m, 1, w, 3, u)
            for n, m, w, u in ((64, 32, 4, 2), (64, 64, 8, 1), (64, 128, 8, 1), (128, 128, 8, 1))
        ),
    ),
}
SOME["gemm_exact"] = SOME["gemm_float"]
SOME["gemm_scaled"] = tuple(c for c in CONFIGS["gemm_scaled"] if c.split == 1)
POINTERS = {
    **dict.fromkeys(("weight", "packed", "codes"), "*u8"),
    **dict.fromkeys(("bias", "table", "a_scales", "a_tensor_scale", "scales", "ends"), "*fp32"),
    **dict.fromkeys(("points", "tensor_scale", "parts", "second"), "*fp32"),
    **dict.fromkeys(("x", "out"), "*fp16"),
    **{"a": "*i8", "a_sums": "*i32"},
}
NUMBERS = ("m", "n", "k", "group", "groups", "count", "size", "scales_at", "points_at")
NUMBERS += ("row_bytes", "plane", "row_stride", "group_stride")
EXACT = ("gemm_exact", "finish_exact", "quantize", "dequantize_codes")  # launched with enable_fp_fusion=False


class Variant(NamedTuple):
    """One thing to compile: a kernel with its constants."""

    kernel: str
    function: object
    name: str  # of the formats
    config: Config | None
    constants: dict
    types: dict  # of pointers that differ from POINTERS
    kind: str = "plain"  # configs.kind_of
    x: str = ""  # its type, in the float kernels

    @property
    def targets(self) -> tuple[str, ...]:
        """What it is compiled for."""
        return targets_of(self.kernel)

    @property
    def options(self) -> dict:
        """Of the launch."""
        options = {"num_warps": self.config.warps, "num_stages": self.config.stages} if self.config else {}
        return options | ({"enable_fp_fusion": False} if self.kernel in EXACT else {})

    def compile(self, target: str, ones: tuple[str, ...] = ()):
        """triton's CompiledKernel. ones: arguments of value 1, which Triton makes constants."""
        names = self.function.arg_names
        constants = {**self.constants, **dict.fromkeys((n for n in names if n in ones), 1)}
        known = {**POINTERS, **dict.fromkeys(NUMBERS, "i32"), **self.types}
        signature = {n: "constexpr" if n in constants else known[n] for n in names}
        # K, N and pointers are taken to be multiples of 16, as they are when layers are.
        sixteens = [i for i, n in enumerate(names) if signature[n][0] == "*" or (n in ("n", "k") and n not in ones)]
        aligned = {(i,): [["tt.divisibility", 16]] for i in sixteens}
        source = ASTSource(self.function, signature, constants, aligned)
        return triton.compile(source, target=TARGETS[target], options=self.options)

    @property
    def source(self) -> str:
        """A hash of all that decides the compiled code, besides Triton and the target."""
        file = self.function.fn.__code__.co_filename
        parts = (*map(code_of, (HERE / "operand.py", HERE / "decode.py", file)), self.kernel, self.name)
        return hashlib.sha256(repr((parts, self.constants, self.types, self.options)).encode()).hexdigest()[:12]


@cache
def code_of(file) -> str:
    """The device functions and the constants in a Python file; no comments, docstrings or positions."""
    with open(file) as opened:
        body = ast.parse(opened.read()).body
    kept = [f for f in body if isinstance(f, ast.Assign) or "triton.jit" in map(ast.unparse, _decorators(f))]
    for f in kept:
        if isinstance(f, ast.FunctionDef) and ast.get_docstring(f) is not None:
            del f.body[0]
    return "\n".join(map(ast.unparse, kept))


def _decorators(statement: ast.stmt) -> list:
    return getattr(statement, "decorator_list", [])


def tiles(kernel: str, kind: str, whole: bool, x: str = "") -> list[Config]:
    """The configs to compile. Large loops that are "masked" or of float32 take minutes each; prune leaves them out."""
    most = 64 * 16 * 8 if kind == "masked" else 64 * 64 * 4 if x == "float32" else 128 * 128 * 8
    return [c for c in (CONFIGS if whole else SOME)[kernel] if c.block_n * c.block_m * c.unroll <= most]


@cache
def variants() -> tuple[Variant, ...]:
    """Every kernel x config x spec."""
    from ...formats import QuantSpec
    from ...ops.records import plan_record
    from ...ops.triton_plan import plan_of  # what the backend itself would launch

    found: list[Variant] = []
    for weight, activation, x_types, whole in SPECS:
        spec = QuantSpec.parse(weight)
        p = plan_of(plan_record(spec, None, (4096, 4096)))
        for x in x_types:
            found += [*_gemv_float(p, weight, x, whole), *_gemm_float(p, weight, x, whole)]
        if activation is not None:
            p = plan_of(plan_record(spec, QuantSpec.parse(activation), (4096, 4096)))
            name = f"{weight} x {activation}"
            found += [*_exact(p, name, whole), *_others(p, name)]
    for weight, x, whole in SCALED_SPECS:
        found += _gemm_scaled(plan_of(plan_record(QuantSpec.parse(weight), None, (4096, 4096))), weight, x, whole)
    return tuple(found)


def _gemv_float(p, name: str, x: str, whole: bool) -> list[Variant]:
    found = []
    for c in tiles("gemv_float", "plain", whole):
        constants = {"w": p.w, "HAS_BIAS": True, "BLOCK_N": c.block_n, "SPLIT": c.split}
        types = {"x": X_TYPES[x], "out": "*fp32" if c.split > 1 else X_TYPES[x]}
        kind = kind_of(p.w.aligned)
        found.append(Variant("gemv_float", gemv_float.gemv_float, name, c, constants, types, kind, x))
    return found


def _gemm_float(p, name: str, x: str, whole: bool) -> list[Variant]:
    parts, shift = p.parts[getattr(torch, x)]
    kind, found = kind_of(p.w.aligned, parts), []
    for c in tiles("gemm_float", kind, whole, x):
        constants = {"w": p.w, "HAS_BIAS": True, "PARTS": parts, "SHIFT": shift, "BLOCK_N": c.block_n}
        constants |= {"BLOCK_M": c.block_m, "SPLIT": c.split, "UNROLL": c.unroll}
        types = {"x": X_TYPES[x], "out": "*fp32" if c.split > 1 else X_TYPES[x]}
        found.append(Variant("gemm_float", gemm_float.gemm_float, name, c, constants, types, kind, x))
    return found


def _gemm_scaled(p, weight: str, x: str, whole: bool) -> list[Variant]:
    found = []
    for c in tiles("gemm_scaled", "plain", whole):
        constants = {"w": p.w, "W_FORMAT": p.scaled_format, "X_FORMAT": x, "HAS_BIAS": True}
        constants |= {"BLOCK_N": c.block_n, "BLOCK_M": c.block_m, "SPLIT": c.split}
        types = {"x": "*u8", "out": "*fp32" if c.split > 1 else "*bf16"}
        found.append(Variant("gemm_scaled", gemm_scaled.gemm_scaled, f"{weight} x {x}", c, constants, types))
    return found


def _exact(p, name: str, whole: bool) -> list[Variant]:
    common = {"w": p.w, "f": p.fold, "HAS_BIAS": True}
    kind, found = kind_of(p.fold.aligned, p.fold.products), []
    for c in tiles("gemm_exact", kind, whole):
        split = split_of(p.fold.length, c)
        sizes = {"BLOCK_N": c.block_n, "BLOCK_M": c.block_m, "SPLIT": split, "UNROLL": c.unroll}
        types = {"out": "*i32"} if split > 1 else {}
        found.append(Variant("gemm_exact", gemm_exact.gemm_exact, name, c, common | sizes, types, kind))
    constants = {**common, "BLOCK_N": 128}
    return [*found, Variant("finish_exact", gemm_exact.finish_exact, name, None, constants, {"parts": "*i32"})]


def _others(p, name: str) -> list[Variant]:
    bits, length = p.w.bits, p.a_group or 1024
    shape = {"e": p.encode, "GROUPS": max(1, 1024 // length), "LENGTH": length, "GIVEN": False}
    widest = 1 << (bits.bit_length() - 1)

    def other(function, constants, types=(), name=name):
        return Variant(function.__name__, function, name, None, constants, dict(types))

    return [
        other(quantize.quantize, {"DIGITS": p.fold.a_digits, **shape}, {"out": "*i8"}),
        other(quantize.quantize, {"DIGITS": 0, **shape}, {"out": "*u8"}, name + " codes"),
        other(quantize.dequantize_codes, {"HAS_POINTS": True, "BLOCK": 1024}, {"out": "*fp32"}),
        other(gemv_float.sum_parts, {"HAS_BIAS": True, "SPLIT": 4, "BLOCK": 256}),
        other(pack.pack_planes, {"bits": bits, "width": widest, "ROWS": 32}),
        other(pack.unpack_planes, {"w": p.w, "ROWS": 32}),
        other(pack.pack_rows, {"bits": bits, "BLOCK": 256}),
        other(pack.unpack_rows, {"bits": bits, "BLOCK": 256}),
    ]
