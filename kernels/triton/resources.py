"""Compiles every kernel with every config ahead of time, with no GPU, and records what each needs.

    python -m minifloat.kernels.triton.resources     writes resources.json, which configs.prune reads (minutes)

Registers are per thread; spills are bytes of memory per thread (what AMD's compiler spills from scalar to vector
registers does not leave the chip and is not counted); shared memory is in bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import gemm_exact, gemm_float, gemv_float, pack, quantize
from .configs import CONFIGS, HERE, Config, kind_of

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}
# What the tables, tile loops and digits of the kernels can look like: (weight, activation of the exact kernel).
SPECS = (("e2m1-g32-e8m0", "int8-row"), ("e3m2-g16-bf16", "int8-g16"), ("uint8-g128-zp", "mxint8"), ("nf4-row", None))
SCALARS = {"m": "i32", "n": "i32", "k": "i32", "group": "i32", "groups": "i32", "count": "i32", "size": "i32"}
POINTERS = {
    **{
        "weight": "*u8",
        "packed": "*u8",
        "codes": "*u8",
        "bias": "*fp32",
        "table": "*fp32",
        "x": "*fp16",
        "out": "*fp16",
    },
    **{
        "a": "*i8",
        "a_scales": "*fp32",
        "a_sums": "*i32",
        "a_tensor_scale": "*fp32",
        "scales": "*fp32",
        "ends": "*fp32",
    },
    **{"points": "*fp32", "tensor_scale": "*fp32", "parts": "*fp32", "second": "*fp32"},
}
OTHERS = {
    "scales_at": "i32",
    "points_at": "i32",
    "row_bytes": "i32",
    "plane": "i32",
    "row_stride": "i32",
    "group_stride": "i32",
}


class Variant(NamedTuple):
    """One thing to compile: a kernel with its constants."""

    kernel: str
    function: object
    name: str  # of the formats
    config: Config | None
    constants: dict
    types: dict  # of pointers that differ from POINTERS
    kind: str = "plain"  # configs.kind_of

    def compile(self, target: str, ones: tuple[str, ...] = ()):
        """triton's CompiledKernel. ones: arguments of value 1, which Triton makes constants."""
        names = self.function.arg_names
        constants = {**self.constants, **dict.fromkeys((n for n in names if n in ones), 1)}
        known = {**POINTERS, **SCALARS, **OTHERS, **self.types}
        signature = {n: "constexpr" if n in constants else known[n] for n in names}
        # K, N and pointers are taken to be multiples of 16, as they are when layers are.
        sixteens = [i for i, n in enumerate(names) if signature[n][0] == "*" or (n in ("n", "k") and n not in ones)]
        aligned = {(i,): [["tt.divisibility", 16]] for i in sixteens}
        source = ASTSource(self.function, signature, constants, aligned)
        options = {"num_warps": self.config.warps, "num_stages": self.config.stages} if self.config else {}
        if self.kernel in ("gemm_exact", "finish_exact", "quantize", "dequantize_codes"):
            options["enable_fp_fusion"] = False
        return triton.compile(source, target=TARGETS[target], options=options)


def tiles(kernel: str, kind: str) -> list[Config]:
    """The configs to compile. Large "masked" loops take minutes each and spill; prune leaves them out."""
    return [c for c in CONFIGS[kernel] if kind != "masked" or c.block_n * c.block_m * c.unroll <= 64 * 16 * 8]


def variants(kernels=None) -> list[Variant]:
    """Every kernel x config x spec; `kernels` limits them."""
    from ...formats import QuantSpec
    from ...ops.records import plan_record
    from ...ops.triton_plan import plan_of  # what the backend itself would launch

    found = []
    for weight, activation in SPECS:
        spec = QuantSpec.parse(weight)
        p = plan_of(plan_record(spec, None, (4096, 4096)))
        common = {"w": p.w, "HAS_BIAS": True}
        for c in CONFIGS["gemv_float"]:
            sizes = {"BLOCK_N": c.block_n, "SPLIT": c.split}
            out = {"out": "*fp32"} if c.split > 1 else {}
            found.append(
                Variant("gemv_float", gemv_float.gemv_float, weight, c, {**common, **sizes}, out, kind_of(p.w.aligned))
            )
        found += _gemm_float(p, weight)
        if activation is None:
            continue
        p = plan_of(plan_record(spec, QuantSpec.parse(activation), (4096, 4096)))
        fold, name = p.fold, f"{weight} x {activation}"
        common = {"w": p.w, "f": fold, "HAS_BIAS": True}
        for c in tiles("gemm_exact", kind_of(fold.aligned)):
            sizes = {
                "BLOCK_N": c.block_n,
                "BLOCK_M": c.block_m,
                "SPLIT": c.split if fold.even or not fold.length else 1,
                "UNROLL": c.unroll,
            }
            out = {"out": "*i32"} if sizes["SPLIT"] > 1 else {}
            found.append(
                Variant("gemm_exact", gemm_exact.gemm_exact, name, c, {**common, **sizes}, out, kind_of(fold.aligned))
            )
        constants = {**common, "BLOCK_N": 128}
        found.append(Variant("finish_exact", gemm_exact.finish_exact, name, None, constants, {"parts": "*i32"}))
        found += _others(p, name)
    return [v for v in found if kernels is None or v.kernel in kernels]


def _gemm_float(p, name: str) -> list[Variant]:
    parts, shift = p.parts[torch.float16]
    kind, found = kind_of(p.w.aligned, parts), []
    for c in tiles("gemm_float", kind):
        constants = {"w": p.w, "HAS_BIAS": True, "PARTS": parts, "SHIFT": shift, "BLOCK_N": c.block_n}
        constants |= {"BLOCK_M": c.block_m, "SPLIT": c.split, "UNROLL": c.unroll}
        types = {"out": "*fp32"} if c.split > 1 else {}
        found.append(Variant("gemm_float", gemm_float.gemm_float, name, c, constants, types, kind))
    return found


def _others(p, name: str) -> list[Variant]:
    e, bits = p.encode, p.w.bits
    length = p.a_group or 1024
    shape = {"GROUPS": max(1, 1024 // length), "LENGTH": length, "GIVEN": False}
    widest = 1 << (bits.bit_length() - 1)
    return [
        Variant("quantize", quantize.quantize, name, None, {"e": e, "DIGITS": 1, **shape}, {"out": "*i8"}),
        Variant("quantize", quantize.quantize, name + " codes", None, {"e": e, "DIGITS": 0, **shape}, {"out": "*u8"}),
        Variant(
            "dequantize_codes",
            quantize.dequantize_codes,
            name,
            None,
            {"HAS_POINTS": True, "BLOCK": 1024},
            {"out": "*fp32"},
        ),
        Variant("sum_parts", gemv_float.sum_parts, name, None, {"HAS_BIAS": True, "SPLIT": 4, "BLOCK": 256}, {}),
        Variant("pack_planes", pack.pack_planes, name, None, {"bits": bits, "width": widest, "ROWS": 32}, {}),
        Variant("unpack_planes", pack.unpack_planes, name, None, {"w": p.w, "ROWS": 32}, {}),
        Variant("pack_rows", pack.pack_rows, name, None, {"bits": bits, "BLOCK": 256}, {}),
        Variant("unpack_rows", pack.unpack_rows, name, None, {"bits": bits, "BLOCK": 256}, {}),
    ]


def report(compiled, target: str) -> dict[str, int]:
    """{"shared": bytes, "registers": per thread, "spills": 0 if everything stayed in registers}."""
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        count = {name: int(value) for name, value in re.findall(r"\.(\w+_count):\s+(\d+)", text)}
        scratch = int(re.search(r"\.private_segment_fixed_size:\s+(\d+)", text).group(1))
        return {"shared": compiled.metadata.shared, "registers": count["vgpr_count"], "spills": scratch}
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "shared": compiled.metadata.shared,
        "registers": usage["REG"],
        "spills": usage["STACK"] + usage["LOCAL"],
    }


def row(variant: Variant, target: str) -> dict:
    """One row of resources.json."""
    config = str(variant.config) if variant.config else ""
    names = {
        "kernel": variant.kernel,
        "formats": variant.name,
        "config": config,
        "target": target,
        "kind": variant.kind,
    }
    return {**names, **report(variant.compile(target), target)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE / "resources.json")
    out = parser.parse_args().out
    rows = []
    todo = variants()
    for i, variant in enumerate(todo):
        rows += [row(variant, target) for target in TARGETS]
        print(f"\r{i + 1} of {len(todo)} kernels for {len(TARGETS)} targets", end="", file=sys.stderr, flush=True)
    lines = ",\n".join(json.dumps(r) for r in rows)
    out.write_text(f'{{"triton": "{triton.__version__}", "rows": [\n{lines}\n]}}\n')
    print(f"\nwrote {out}", file=sys.stderr)


if __name__ == "__main__":
    main()
