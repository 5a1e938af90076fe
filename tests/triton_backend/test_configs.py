"""Which tile shapes are used: pure functions, tested with no GPU and no Triton."""

import json

import pytest

from minifloat.kernels.triton import configs
from minifloat.kernels.triton.configs import CONFIGS, SHARED_BYTES, Config


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
        chosen = configs.default(kernel, m, 4096, 4096)
        assert chosen in CONFIGS[kernel] and chosen.block_m == (1 if kernel == "gemv_float" else want)


def test_default_splits_k_only_to_fill_the_gpu():
    assert configs.default("gemv_float", 1, 256, 8192).split > 1
    assert configs.default("gemv_float", 1, 65536, 8192).split == 1
    assert configs.default("gemv_float", 1, 256, 256).split == 1  # one block of K: nothing to split


def test_something_is_left_for_every_target_and_height():
    """Spills and shared memory are recorded (resources.json), and pruning by them leaves a config for every M."""
    for target in SHARED_BYTES:
        for kernel, everything in CONFIGS.items():
            kinds = ("plain", "masked", "parts") if kernel == "gemm_float" else ("plain", "masked")
            for kind in kinds:
                kept = configs.prune(everything, configs.reported(target, kind)[kernel], target)
                assert kept
                for m in (1, 16, 100):
                    assert configs.choose(kernel, 4, kind, m, 4096, 4096, "", target) in kept


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
    chosen = [configs.choose("gemm_float", 4, "plain", m, 4096, n, "NVIDIA H100 80GB HBM3 (made up)", "") for m, n in
              ((9, 4096), (16, 4096), (17, 4096), (16, 8192))]  # fmt: skip
    assert [c == config for c in chosen] == [True, True, False, False]
