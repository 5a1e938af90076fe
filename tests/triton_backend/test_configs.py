"""Which tile shapes are used: pure functions, tested with no GPU and no Triton."""

import json

import pytest

from minifloat.kernels.triton import configs
from minifloat.kernels.triton.configs import CONFIGS, SHARED_BYTES, Config, Problem


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


def test_something_is_left_for_every_target_and_height():
    """Spills and shared memory are recorded (resources.json), and pruning by them leaves a config for every M."""
    for target in SHARED_BYTES:
        for kernel, everything in CONFIGS.items():
            kinds = ("plain", "masked", "parts") if kernel == "gemm_float" else ("plain", "masked")
            for kind in kinds:
                kept = configs.prune(everything, configs.reported(target, kind)[kernel], target)
                assert kept
                for m in (1, 16, 100):
                    assert configs.choose(problem(kernel, m, 4096, 4096, kind=kind), "", target) in kept


@pytest.mark.parametrize("target", SHARED_BYTES)
@pytest.mark.parametrize("kernel", ["gemm_exact", "gemm_float"])
def test_large_tiles_fit(kernel, target):
    """With group scales too: the worst format of the table decides what is kept."""
    for kind, tile in (("plain", (128, 128)), ("masked", (64, 128))):
        kept = configs.prune(CONFIGS[kernel], configs.reported(target, kind)[kernel], target)
        assert tile in {(c.block_n, c.block_m) for c in kept}, kind


def test_tuned_entries_win(tmp_path, monkeypatch):
    monkeypatch.setattr(configs, "HERE", tmp_path)
    (tmp_path / "tuned").mkdir()
    config = Config(64, 16, 8, 4, 2)
    entry = {"problem": ["gemm_float", 4, 16, 4096, 4096], "config": config._asdict(), "time_us": 1.0}
    name = configs.file_name("NVIDIA H100 80GB HBM3 (made up)")
    assert name == "nvidia-h100-80gb-hbm3-made-up.json"
    (tmp_path / "tuned" / name).write_text(json.dumps({"entries": [entry]}))
    problems = [problem("gemm_float", m, 4096, k) for m, k in ((9, 4096), (16, 4096), (17, 4096), (16, 8192))]
    chosen = [configs.choose(p, "NVIDIA H100 80GB HBM3 (made up)", "") for p in problems]
    assert [c == config for c in chosen] == [True, True, False, False]
