"""Kernels compiled ahead of time for GPUs that are not here, held to the committed table and to the numeric contract.

The whole table is made by `python -m minifloat.kernels.triton.resources`; here is a part of it that compiles quickly.
"""

import importlib.metadata
import importlib.util
import json
import os
import subprocess
import sys

import pytest

from minifloat.kernels.triton import configs
from minifloat.kernels.triton.configs import CONFIGS

SCRIPT = """
import json, re, sys
from minifloat.kernels.triton import resources
wanted = json.loads(sys.argv[1])
for variant in resources.variants():
    config = str(variant.config) if variant.config else ""
    if [variant.kernel, variant.name, config] not in wanted:
        continue
    for target in resources.TARGETS:
        compiled = variant.compile(target)
        row = resources.row(variant, target)
        if target != "gfx942":
            code = re.findall(r"^\\s+(?:@\\S+ )?([a-z]\\w*(?:\\.\\w+|::\\w+)*)", compiled.asm["ptx"], re.M)
            row["code"] = sorted({c for c in code if "f32" in c or "mma" in c})
        print(json.dumps(row))
"""
# A kernel of each kind, and every kind of decode.
WANTED = [
    ["gemv_float", "e2m1-g32-e8m0", "n64 m1 split1 warps4 stages2 unroll8"],
    ["gemm_float", "nf4-row", "n64 m16 split1 warps4 stages3 unroll8"],
    ["gemm_exact", "e2m1-g32-e8m0 x int8-row", "n64 m16 split1 warps4 stages3 unroll8"],
    ["gemm_exact", "e3m2-g16-bf16 x int8-g16", "n64 m128 split1 warps8 stages3 unroll1"],
    ["gemm_exact", "uint8-g128-zp x mxint8", "n64 m16 split4 warps4 stages3 unroll8"],
    ["gemm_exact", "uint8-g128-zp x mxint8", "n128 m128 split1 warps8 stages3 unroll1"],
    ["finish_exact", "uint8-g128-zp x mxint8", ""],
    ["quantize", "e3m2-g16-bf16 x int8-g16", ""],
    ["dequantize_codes", "e3m2-g16-bf16 x int8-g16", ""],
    ["pack_planes", "e3m2-g16-bf16 x int8-g16", ""],
]


def table():
    return json.loads((configs.HERE / "resources.json").read_text())


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Rows of the table made now, in a process in which Triton compiles, whatever it does in this one."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(WANTED)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_every_kernel_compiles_for_every_target(compiled):
    assert len(compiled) == len(WANTED) * 3


def test_the_table_is_what_the_compiler_says(compiled):
    if importlib.metadata.version("triton") != table()["triton"]:
        pytest.skip(f"the table was made with Triton {table()['triton']}")
    recorded = {(r["kernel"], r["formats"], r["config"], r["target"]): r for r in table()["rows"]}
    for row in compiled:
        known = recorded[row["kernel"], row["formats"], row["config"], row["target"]]
        assert {name: row[name] for name in ("shared", "registers", "spills")} == {
            name: known[name] for name in ("shared", "registers", "spills")
        }


def test_exact_kernels_round_every_step(compiled):
    """No fused multiply-add, no approximate division, nothing that flushes subnormals: `==` needs all three."""
    checked = 0
    for row in compiled:
        if row["kernel"] in ("gemm_exact", "finish_exact", "quantize", "dequantize_codes") and "code" in row:
            checked += 1
            bad = [c for c in row["code"] if c.startswith(("fma", "mad", "div.full", "div.approx")) or ".ftz" in c]
            assert not bad, (row["kernel"], row["formats"], bad)
    assert checked == 2 * sum(k in ("gemm_exact", "finish_exact", "quantize", "dequantize_codes") for k, *_ in WANTED)


def test_tensor_cores_are_used(compiled):
    for row in compiled:
        if row["kernel"] in ("gemm_exact", "gemm_float") and "code" in row:
            kind = "s32.s8.s8" if row["kernel"] == "gemm_exact" else "f32.f16.f16"
            assert any("mma" in c and kind in c for c in row["code"]), row


def test_the_table_covers_every_config():
    rows = {(r["kernel"], r["config"], r["target"]) for r in table()["rows"]}
    for kernel, everything in CONFIGS.items():
        assert all((kernel, str(c), target) in rows for c in everything for target in configs.SHARED_BYTES)
