"""Which tile shapes are used: pure functions, tested with no GPU and no Triton."""

import json
from types import SimpleNamespace

import pytest
import torch

from minifloat.formats import QuantSpec
from minifloat.kernels.triton import configs, operand, scaled
from minifloat.kernels.triton.configs import CONFIGS, SHARED_BYTES, Config, Gpu, Problem, targets_of
from minifloat.ops.fakes import plan_fields
from minifloat.ops.records import plan_record
from minifloat.ops.triton import gpu_of

X = ("float16", "bfloat16", "float32")


def problem(kernel, m, n, k, bits=4, kind="plain", group=0, x="float16"):
    return Problem(kernel, bits, kind, group, x, m, n, k)


def reports(configs_and_numbers):
    return {str(c): {"shared": shared, "spills": spills} for c, shared, spills in configs_and_numbers}


def test_prune_keeps_what_fits():
    a, b, c, d = (Config(n, 16, 1, 4, 2) for n in (16, 32, 64, 128))
    limit = SHARED_BYTES["sm_90"]
    seen = reports([(a, limit, 0), (b, limit + 1, 0), (c, 0, 8)])  # d was never compiled
    assert configs.prune([a, b, c, d], seen, "sm_90") == [a]
    assert configs.prune([a], seen, "gfx942") == []


@pytest.mark.parametrize("kernel", CONFIGS)
def test_default_covers_the_rows_with_the_smallest_tile(kernel):
    for m, want in ((1, 16), (3, 16), (16, 16), (17, 32), (33, 64), (65, 128), (5000, 128)):
        chosen = configs.default(problem(kernel, m, 4096, 4096))
        assert chosen in CONFIGS[kernel] and chosen.block_m == (1 if kernel == "gemv_float" else want)


def test_default_splits_k_only_to_fill_the_gpu():
    assert configs.default(problem("gemv_float", 1, 256, 8192)).split > 1
    assert configs.default(problem("gemv_float", 1, 65536, 8192)).split == 1
    assert configs.default(problem("gemv_float", 1, 256, 256)).split == 1  # one block of K: nothing to split


@pytest.mark.parametrize(
    ("m", "bits", "group", "split"),
    [
        *((16, 4, 0, True), (16, 4, 32, False), (16, 4, 128, False), (1, 4, 32, False), (1, 4, 128, True)),
        # 8 bytes for each of k / group sums against a quarter of bits / 8 bytes for each of k weights
        *((2, 4, 128, True), (3, 4, 128, False), (2, 2, 128, False), (1, 2, 128, True)),
        *((1, 8, 24, False), (1, 8, 512, False)),  # folds that do not end with each block of 256
    ],
)
def test_exact_folds_are_split_only_where_their_sums_are_few(m, bits, group, split):
    """A split K leaves every fold's sums in memory: for 16 rows and groups of 32, eight times the weight's bytes."""
    chosen = configs.default(problem("gemm_exact", m, 2048, 6144, bits, group=group))
    assert (chosen.split > 1) == split
    assert configs.split_of(group, chosen) == chosen.split


def test_one_config_is_enough():
    """Whatever is left is used, if need be with K in one part."""
    only = Config(64, 16, 4, 4, 3)
    assert configs.default(problem("gemm_exact", 16, 4096, 4096, group=24), [only]) == only
    assert configs.split_of(24, only) == 1 and configs.split_of(16, only) == configs.split_of(0, only) == 4


KINDS = {
    "gemv_float": [(kind, x) for kind in ("plain", "masked") for x in X],
    "gemm_float": [
        *((kind, x) for kind in ("plain", "masked") for x in X),
        ("parts", "float16"),
        ("parts", "bfloat16"),
    ],
    "gemm_scaled": [("plain", "e4m3")],
    "gemm_exact": [(kind, "float32") for kind in ("plain", "masked", "parts")],
}


TARGETS = [(kernel, target) for kernel in CONFIGS for target in targets_of(kernel)]


@pytest.mark.parametrize(("kernel", "target"), TARGETS)
def test_something_is_left_for_every_target_and_height(kernel, target):
    """Spills and shared memory are recorded (resources.json), and pruning by them leaves a config for every M."""
    for kind, x in KINDS[kernel]:
        kept = configs.prune(CONFIGS[kernel], configs.reported(target, kind, x)[kernel], target)
        assert kept
        for m in (1, 16, 100):
            gpu = Gpu("", "sm_90", 0, target) if kernel == "gemm_scaled" else Gpu("", target)
            assert configs.choose(problem(kernel, m, 4096, 4096, kind=kind, x=x), gpu) in kept


@pytest.mark.parametrize("target", targets_of("gemm_float"))
@pytest.mark.parametrize("kernel", ["gemm_exact", "gemm_float"])
def test_large_tiles_fit(kernel, target):
    """With group scales too: the worst format of the table decides what is kept."""
    # nvfp4 x nvfp4 spills 8 bytes in the tile of 64 x 128 on sm_90
    masked = (128, 64) if (kernel, target) == ("gemm_exact", "sm_90") else (64, 128)
    for kind, tile in (("plain", (128, 128)), ("masked", masked)):
        kept = configs.prune(CONFIGS[kernel], configs.reported(target, kind, "float16")[kernel], target)
        assert tile in {(c.block_n, c.block_m) for c in kept}, kind


def test_types_that_were_not_compiled_are_held_to_float16():
    held = {x: configs.reported("sm_90", "masked", x)["gemm_float"] for x in X}
    assert held["float32"] == held["bfloat16"] == held["float16"]
    plain = {x: configs.reported("sm_90", "plain", x)["gemm_float"] for x in X}
    assert plain["float32"] != plain["float16"] != plain["bfloat16"]


SMALL = 99 * 1024  # sm_86, sm_89 and sm_120


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("kernel", ["gemv_float", "gemm_float", "gemm_exact"])
def test_what_is_chosen_fits_a_gpu_with_less_shared_memory(kernel, target):
    for kind, x in KINDS[kernel]:
        reports = configs.reported(target, kind, x)[kernel]
        for m in (1, 16, 100, 1000):
            chosen = configs.choose(problem(kernel, m, 4096, 4096, kind=kind, x=x), Gpu("", target, SMALL))
            assert reports[str(chosen)]["shared"] <= SMALL and not reports[str(chosen)]["spills"]
    if kernel == "gemm_float":  # there is something to leave out
        assert any(r["shared"] > SMALL for r in configs.reported(target, "plain", "float16")[kernel].values())


def test_the_smaller_limit_holds():
    a, b = (Config(n, 16, 1, 4, 2) for n in (16, 32))
    seen = reports([(a, SMALL, 0), (b, SMALL + 1, 0)])
    assert configs.prune([a, b], seen, "sm_80", SMALL) == [a]
    assert configs.prune([a, b], seen, "sm_80", 1 << 20) == configs.prune([a, b], seen, "sm_80") == [a, b]


def test_targets():
    wanted = {(8, 0): "sm_80", (8, 9): "sm_80", (9, 0): "sm_90", (10, 3): "sm_90", (12, 0): "sm_80"}
    assert {capability: configs.target_of(capability) for capability in wanted} == wanted


SCALED = {"mxfp4": "e2m1", "mxfp8-e4m3": "e4m3", "mxfp8-e5m2": "e5m2", "e2m1-g96-e8m0": "e2m1"}
NOT_SCALED = (
    *("e2m1-g16-e8m0", "e2m1-row-e8m0", "e2m1-g32", "e2m1-g32-bf16", "nvfp4", "mxfp6-e2m3", "mxint8", "e3m0-g32-e8m0"),
    *("e4m3fnuz-g32-e8m0", "e5m2fnuz-g32-e8m0", "e4m3ieee-g32-e8m0", "e4m3b11fnuz-g32-e8m0", "e1m2-g32-e8m0"),
)


@pytest.mark.parametrize("spec", (*SCALED, *NOT_SCALED))
def test_weights_of_block_scaled_tensor_cores(spec):
    """Those whose codes and scales tl.dot_scaled takes as they are: the same values, special ones too."""
    weight = plan_fields(plan_record(QuantSpec.parse(spec), None, (16, 192)))["weight"]
    assert scaled.format_of(weight, operand.decode_of(weight)) == SCALED.get(spec, "")


def test_gpus_with_block_scaled_tensor_cores():
    wanted = {(8, 9): "", (9, 0): "", (10, 0): "sm_100", (10, 3): "sm_100", (11, 0): "", (12, 0): ""}
    assert {capability: scaled.target_of(capability) for capability in wanted} == wanted


@pytest.mark.parametrize(
    ("capability", "hip", "targets"),
    [
        ((10, 0), None, ("sm_90", "sm_100")),
        ((9, 0), None, ("sm_90", "")),
        ((10, 0), "7.0", ("gfx942", "")),
    ],
)
def test_what_is_read_of_a_gpu(monkeypatch, capability, hip, targets):
    numbers = {"major": capability[0], "minor": capability[1], "shared_memory_per_block_optin": SMALL}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(name="A GPU", **numbers))
    monkeypatch.setattr(torch.version, "hip", hip)
    assert gpu_of.__wrapped__(torch.device("cuda", 0)) == Gpu("A GPU", targets[0], SMALL, targets[1])


def test_rows_that_are_multiplied_as_8_bit_floats():
    blackwell, hopper = Gpu("", "sm_90", 0, "sm_100"), Gpu("", "sm_90")
    wanted = {("e2m1", 3, blackwell): True, ("e2m1", 2, blackwell): False}
    wanted |= {("", 3, blackwell): False, ("e2m1", 3, hopper): False}
    assert {case: scaled.multiplies(*case) for case in wanted} == wanted


def test_the_scaled_target_decides_what_fits():
    """A GPU of 10.x is held to its own figures in gemm_scaled, and to those of sm_90 elsewhere."""
    gpu = Gpu("", "sm_90", 0, "sm_100")
    kept = configs.prune(CONFIGS["gemm_scaled"], configs.reported("sm_100", "plain", "e4m3")["gemm_scaled"], "sm_100")
    assert configs.fitting(problem("gemm_scaled", 64, 4096, 4096, x="e4m3"), gpu) == kept
    assert "gemm_scaled" not in configs.reported("sm_90", "plain", "e4m3")


@pytest.fixture
def tuned(tmp_path, monkeypatch):
    """Writes entries for the made-up GPU that it returns."""
    gpu = Gpu("NVIDIA H100 80GB HBM3 (made up)", "sm_90")
    (tmp_path / "tuned").mkdir()
    (tmp_path / "resources.json").write_text((configs.HERE / "resources.json").read_text())
    monkeypatch.setattr(configs, "HERE", tmp_path)
    assert configs.file_name(gpu.name) == "nvidia-h100-80gb-hbm3-made-up.json"

    def write(*entries):
        rows = [{"problem": p._asdict(), "config": c._asdict(), "time_us": 1.0} for p, c in entries]
        (tmp_path / "tuned" / configs.file_name(gpu.name)).write_text(json.dumps({"entries": rows}))
        return gpu

    yield write
    configs.tuned.cache_clear()
    configs.choose.cache_clear()


def test_tuned_entries_win(tuned):
    """For what they were measured with: every field of the problem counts, M by its power of two."""
    known, config = problem("gemm_float", 16, 4096, 4096, group=128), Config(64, 16, 8, 4, 3)
    gpu = tuned((known, config))
    assert configs.default(known, configs.fitting(known, gpu)) != config
    assert configs.choose(known, gpu) == configs.choose(known._replace(m=9), gpu) == config
    others = [
        *({"kernel": "gemm_exact"}, {"bits": 5}, {"kind": "parts"}, {"group": 0}, {"group": 64}, {"x": "bfloat16"}),
        *({"m": 17}, {"m": 8}, {"n": 65536}, {"k": 512}),
    ]
    for changed in others:
        assert configs.choose(known._replace(**changed), gpu) != config, changed


def test_tuned_entries_that_do_not_fit_are_left(tuned):
    known = problem("gemm_float", 128, 4096, 4096, group=128)
    large, foreign = Config(128, 128, 1, 8, 3, 4), Config(48, 16, 1, 4, 3)
    gpu = tuned((known, large), (known._replace(n=8192), foreign))
    assert configs.choose(known, gpu) == large
    assert configs.choose(known, gpu._replace(shared_bytes=SMALL)) != large
    assert configs.choose(known._replace(n=8192), gpu) in CONFIGS["gemm_float"]
