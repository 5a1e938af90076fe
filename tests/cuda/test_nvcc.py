"""Every CUDA kernel compiles for sm_80 and sm_90a without spilling, into the instructions that it claims."""

import importlib.util
import json
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("cuda_resources", Path(__file__).with_name("resources.py"))
resources = importlib.util.module_from_spec(spec)
spec.loader.exec_module(resources)

needs_nvcc = pytest.mark.skipif(
    resources.find_nvcc() is None, reason="the CUDA kernels were not compiled: no nvcc here"
)
CASES = [(source, arch) for source in resources.SOURCES for arch in resources.ARCHITECTURES]
MULTIPLIES = {"int8": "IMMA", "int16": "IMMA", "float16": "HMMA", "bfloat16": "HMMA"}
MULTIPLIES |= {"float16x2": "HMMA", "bfloat16x3": "HMMA"}
WARPGROUP_MULTIPLIES = {"int8": "IGMMA", "int16": "IGMMA", "float16": "HGMMA", "bfloat16": "HGMMA", "float8": "QGMMA"}


def copied_ahead(math, bits):
    """The chunks of a warp of linear_narrow that are on their way to shared memory; 0: to registers."""
    if bits <= 3:
        return {1: 4, 2: 2, 3: 2}[bits]
    if math == "bfloat16x3":
        return int(5 <= bits <= 7)
    return int("float" in math and bits >= 7)


@needs_nvcc
@pytest.mark.parametrize(("source", "arch"), CASES, ids=[f"{source.stem}-{arch}" for source, arch in CASES])
def test_compiles(source, arch):
    report = resources.compile_report(source, arch)
    assert report
    spilled = {name: found["spills"] for name, found in report.items() if found["spills"]}
    assert not spilled
    serialized = [name for name, found in report.items() if found.get("serialized")]
    assert not serialized, "products of wgmma that should overlap do not"
    known = json.loads(resources.TABLE.read_text())
    if known["nvcc"] == resources.nvcc_version():  # another version may allocate otherwise
        got = {name: [found["registers"], found["stack"]] for name, found in report.items()}
        assert got == {name: known["kernels"][arch].get(name) for name in got}, "run python tests/cuda/resources.py"


@needs_nvcc
@pytest.mark.parametrize(("source", "arch"), CASES, ids=[f"{source.stem}-{arch}" for source, arch in CASES])
def test_instructions(source, arch):
    if resources.find_nvdisasm() is None:
        pytest.skip("the instructions were not checked: nvdisasm is neither on the path nor in triton's package")
    for name, found in resources.compile_report(source, arch).items():
        counts = found["instructions"]

        def count(start, has="", counts=counts):
            return sum(n for op, n in counts.items() if op.split(".")[0] == start and has in op)

        assert count("LDL") == count("STL") == 0, f"{name} keeps arrays in local memory"
        if name.startswith("decode_panels"):  # a store for four k's, 32 in all; nvcc 13.0 makes halves of two of them
            assert count("LDG", "NA") == int(name.rstrip(">").split(", ")[1]) and count("STG", "64") >= 30, name
        if not name.startswith("linear_"):
            continue
        if name.startswith("linear_warpgroup") and arch != "sm_90a":
            assert sum(counts.values()) < 100, f"{name} is empty but on sm_90a"
            continue
        if name == "linear_tables":  # two panels, the codes of a chunk and of the next one; a load for four weights
            assert count("LDG", "NA") == 4 and count("LDS") >= 64 and count("LDGSTS", "128") >= 2
            continue
        first = name.startswith(("linear_lanes", "linear_bits"))  # else the kind of multiplication comes before
        bits = int(name.rstrip(">").split(", ")[0 if first else 1].split("<")[-1])
        math = name.split("<")[1].split(",")[0]
        ahead = copied_ahead(math, bits) if name.startswith("linear_narrow") else 0
        # The codes of a chunk, and again of the next ones: 16 bytes a lane each.
        if ahead:
            assert count("LDS", "128") >= bits and count("LDG", "NA") == 0, name
            assert found["registers"] <= 128 and 2 * 8 * ahead * bits * 512 >= 32 << 10, f"{name}: two blocks, 32 KiB"
        else:
            assert count("LDG", "NA") >= 2 * bits, f"{name} streams its codes past L1"
        assert count("LDGSTS", "128") >= 2 + bits * (ahead and ahead + 1), f"{name} copies scales by cp.async"
        if name.startswith("linear_bits"):  # per plane of x, tiles of eight rows; the weights' digits once
            planes, ordered = int(name.split(", ")[1]), name.endswith("1>")
            assert count("BMMA", "AND.POPC") == (8 * planes + 1) * bits * (3 if ordered else 1), name
        elif name.startswith("linear_warpgroup"):
            assert count(WARPGROUP_MULTIPLIES[math]) == (8 if math == "int16" else 2), name
            assert count("WARPGROUP", "ARRIVE") == 2 and count("FENCE", "ASYNC") == 1, name
        else:
            assert count(MULTIPLIES.get(math, "FFMA")) > 0, name
        if math in ("int8", "int16", "float8") and bits <= 4:
            halves = {"linear_wide": 2, "linear_warpgroup": 4}.get(
                name.split("<")[0], 16
            )  # half blocks that the loop's body decodes
            permutes = halves * (4 if bits <= 3 else 8) * (2 if math == "int16" else 1)
            assert count("PRMT") >= permutes, f"{name} decodes by byte permutation"
