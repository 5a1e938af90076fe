"""Kernels compiled ahead of time for GPUs that are not here, held to the committed table and to the numeric contract.

The whole table is made by `python -m minifloat.kernels.triton.resources`; here is a part of it that compiles quickly.
"""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys

import pytest

from minifloat.kernels.triton import configs
from minifloat.kernels.triton.configs import CONFIGS

SCRIPT = """
import json, re, sys
from minifloat.kernels.triton import resources
wanted = json.loads(sys.argv[1])
everything = resources.variants()
print(json.dumps([resources.names_of(v, target) for v in everything for target in v.targets]))
for variant in everything:
    config = str(variant.config) if variant.config else ""
    if [variant.kernel, variant.name, variant.x, config] not in wanted:
        continue
    for target in variant.targets:
        compiled = variant.compile(target)
        row = resources.row(variant, target)
        text = compiled.asm["amdgcn" if target.startswith("gfx") else "ptx"]
        code = re.findall(r"^\\s+(?:@\\S+ )?([a-z]\\w*(?:\\.\\w+|::\\w+)*)", text, re.M)
        row["code"] = sorted({c for c in code if "f32" in c or "mma" in c or "mfma" in c})
        row["modes"] = re.findall(r"amdhsa_float_(?:denorm_mode_32|round_mode_32) (\\d)", text)
        print(json.dumps(row))
"""
# A kernel of each kind, and every kind of decode.
WANTED = [
    ["gemv_float", "e2m1-g32-e8m0", "float16", "n64 m1 split1 warps4 stages2 unroll8"],
    ["gemv_float", "nf4-row", "bfloat16", "n64 m1 split4 warps4 stages2 unroll8"],
    ["gemm_float", "nf4-row", "float16", "n64 m16 split1 warps4 stages3 unroll8"],
    ["gemm_float", "e2m1-g32-e8m0", "bfloat16", "n64 m64 split1 warps8 stages3 unroll1"],
    ["gemm_float", "e2m1-g32-e8m0", "float32", "n64 m64 split1 warps8 stages3 unroll1"],
    ["gemm_exact", "e2m1-g32-e8m0 x int8-row", "", "n64 m16 split1 warps4 stages3 unroll8"],
    ["gemm_exact", "e3m2-g16-bf16 x int8-g16", "", "n64 m128 split1 warps8 stages3 unroll1"],
    ["gemm_exact", "uint8-g128-zp x mxint8", "", "n64 m16 split4 warps4 stages3 unroll8"],
    ["gemm_exact", "uint8-g128-zp x mxint8", "", "n128 m128 split1 warps8 stages3 unroll1"],
    ["gemm_exact", "int4-row x int8-row", "", "n64 m16 split4 warps4 stages3 unroll8"],
    ["gemm_exact", "e3m2-row x e3m2-row", "", "n64 m64 split1 warps8 stages3 unroll1"],
    ["gemm_exact", "nvfp4 x nvfp4", "", "n64 m64 split1 warps8 stages3 unroll1"],
    ["gemm_exact", "uint4-g16-zp x int8-row", "", "n64 m16 split4 warps4 stages3 unroll8"],
    ["finish_exact", "uint8-g128-zp x mxint8", "", ""],
    ["finish_exact", "int4-row x int8-row", "", ""],
    ["finish_exact", "nvfp4 x nvfp4", "", ""],
    ["quantize", "e3m2-g16-bf16 x int8-g16", "", ""],
    ["quantize", "nvfp4 x nvfp4", "", ""],
    ["dequantize_codes", "e3m2-g16-bf16 x int8-g16", "", ""],
    ["pack_planes", "e3m2-g16-bf16 x int8-g16", "", ""],
]
SCALED = [
    ["gemm_scaled", "e2m1-g32-e8m0 x e4m3", "", "n128 m16 split4 warps4 stages3 unroll4"],
    ["gemm_scaled", "e2m1-g32-e8m0 x e5m2", "", "n128 m128 split1 warps8 stages3 unroll4"],
    ["gemm_scaled", "e4m3fn-g32-e8m0 x e4m3", "", "n128 m64 split1 warps8 stages3 unroll4"],
    ["gemm_scaled", "e5m2-g64-e8m0 x e5m2", "", "n128 m32 split1 warps4 stages3 unroll4"],
]
EXACT = ("gemm_exact", "finish_exact", "quantize", "dequantize_codes")
NUMBERS = ("shared", "registers", "spills")


def table():
    return json.loads((configs.HERE / "resources.json").read_text())


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Rows of the table made now, in a process in which Triton compiles, whatever it does in this one."""
    if importlib.util.find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install triton")
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path_factory.mktemp("triton")), "TRITON_INTERPRET": "0"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(WANTED + SCALED)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    everything, *rows = map(json.loads, done.stdout.splitlines())
    return everything, rows


def test_every_kernel_compiles_for_every_target(compiled):
    assert len(compiled[1]) == len(WANTED) * 3 + len(SCALED)


def key(row):
    return tuple(row[name] for name in ("kernel", "formats", "x", "config", "target"))


def test_the_table_is_of_these_sources(compiled):
    """Device code, formats and configs as they are now: after a change run minifloat.kernels.triton.resources."""
    now, recorded = ({key(r): r["source"] for r in rows} for rows in (compiled[0], table()["rows"]))
    assert now.keys() == recorded.keys()
    stale = sorted({(k[0], k[1]) for k in now if now[k] != recorded[k]})
    assert not stale, "python -m minifloat.kernels.triton.resources brings these up to date"


def test_the_table_is_what_the_compiler_says(compiled):
    if importlib.metadata.version("triton") != table()["triton"]:
        pytest.skip(f"the table was made with Triton {table()['triton']}")
    recorded = {key(r): r for r in table()["rows"]}
    for row in compiled[1]:
        assert [row[name] for name in NUMBERS] == [recorded[key(row)][name] for name in NUMBERS], key(row)


def test_exact_kernels_round_every_step(compiled):
    """No fused multiply-add, no approximate division, nothing that flushes subnormals: `==` needs all three."""
    rows = [row for row in compiled[1] if row["kernel"] in EXACT]
    assert len(rows) == 3 * sum(k in EXACT for k, *_ in WANTED)
    for row in rows:
        if row["target"] != "gfx942":
            bad = [c for c in row["code"] if c.startswith(("fma", "mad", "div.full", "div.approx")) or ".ftz" in c]
        elif row["kernel"] in ("gemm_exact", "finish_exact"):
            # Not of the others: there a division, of floats or of integers, is a series of v_fma.
            bad = [c for c in row["code"] if re.search(r"_f(ma|mac|mad|mamk|maak)_|_mad_|_mac_|rcp|div", c)]
        else:
            bad = []
        assert not bad, (key(row), bad)
        if row["target"] == "gfx942":
            assert row["modes"] == ["0", "3"], key(row)  # to nearest even, subnormals kept


def test_float_divisions_are_exact_on_amd(compiled):
    """A true division there ends with v_div_fixup; the approximate one is v_rcp alone."""
    rows = [row for row in compiled[1] if row["kernel"] == "quantize" and row["target"] == "gfx942"]
    assert rows and all({"v_div_fmas_f32", "v_div_fixup_f32"} <= set(row["code"]) for row in rows)


def test_tensor_cores_are_used(compiled):
    """Where x is float32 there are none that multiply it without rounding it first."""
    kinds = {"": "s32.s8.s8", "float16": "f32.f16.f16", "bfloat16": "f32.bf16.bf16"}
    amd = {"": "v_mfma_i32_", "float16": "v_mfma_f32_", "bfloat16": "v_mfma_f32_"}
    for row in compiled[1]:
        if row["kernel"] in ("gemm_exact", "gemm_float") and row["x"] != "float32":
            if row["target"] == "gfx942":
                assert any(c.startswith(amd[row["x"]]) for c in row["code"]), row
            else:
                assert any("mma" in c and kinds[row["x"]] in c for c in row["code"]), row


def test_block_scaled_products_are_used(compiled):
    """And no other: where a tile does not suit them Triton decodes to bfloat16 and says nothing."""
    rows = [row for row in compiled[1] if row["kernel"] == "gemm_scaled"]
    assert len(rows) == len(SCALED)
    for row in rows:
        products = {c for c in row["code"] if "mma" in c}
        assert products == {"tcgen05.mma.cta_group::1.kind::mxf8f6f4.block_scale.scale_vec::1X"}, key(row)


def test_the_table_covers_every_config():
    rows = {(r["kernel"], r["config"], r["target"]) for r in table()["rows"]}
    for kernel, everything in CONFIGS.items():
        assert all((kernel, str(c), target) in rows for c in everything for target in configs.targets_of(kernel))
