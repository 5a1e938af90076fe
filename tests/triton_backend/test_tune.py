"""What tune.py measures reaches the kernels by way of its file. Times are made up: there need be no GPU."""

import importlib.util
import json

import pytest
import torch

from minifloat.kernels.triton import configs, tune
from minifloat.kernels.triton.configs import Gpu
from minifloat.ops.triton import problem_of
from minifloat.ops.triton_plan import plan_of

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed: pip install triton", allow_module_level=True)

GPU = Gpu("A GPU that is made up", "sm_90")
WHAT = {
    "shapes": [(64, 256), (96, 512)],
    "rows": [1, 4, 5, 16],
    "pairs": [("uint4-g128", None), ("nvfp4", None), ("mxfp4", "int8-row"), ("e3m2-row", "int8-row")],
    "dtypes": [torch.float16, torch.bfloat16],
    "device": "cpu",
}


@pytest.fixture
def path(tmp_path, monkeypatch):
    (tmp_path / "resources.json").write_text((configs.HERE / "resources.json").read_text())
    monkeypatch.setattr(configs, "HERE", tmp_path)
    # What the usual rule would hardly choose is fastest, so that what is chosen comes from the file.
    monkeypatch.setattr(tune, "measure", lambda call, config: 1000 + 9 * config.stages - config.block_n)
    yield tmp_path / "tuned" / configs.file_name(GPU.name)
    configs.tuned.cache_clear()
    configs.choose.cache_clear()


def problems():
    """Of everything in WHAT, as the op finds them."""
    import minifloat as mf
    from minifloat.ops.records import plan_record

    for n, k in WHAT["shapes"]:
        for weight, activation in WHAT["pairs"]:
            a = None if activation is None else mf.QuantSpec.parse(activation)
            p = plan_of(plan_record(mf.QuantSpec.parse(weight), a, (n, k)))
            yield from (problem_of(p, m, dtype) for m in WHAT["rows"] for dtype in WHAT["dtypes"])


def test_what_is_measured_is_what_is_chosen(path):
    tune.tune(path, GPU, 1e9, **WHAT)
    entries = json.loads(path.read_text())["entries"]
    wanted = {
        configs.bucket_of(p): configs.Config(**e["config"]) for e in entries for p in [configs.Problem(**e["problem"])]
    }
    assert len(entries) == len(wanted) == len({configs.bucket_of(p) for p in problems()})
    assert {p.kind for p in wanted} == {"plain", "masked", "parts"}
    differs = 0
    for problem in problems():
        chosen = configs.choose(problem, GPU)
        assert chosen == wanted[configs.bucket_of(problem)] and chosen in configs.fitting(problem, GPU)
        assert configs.splits(problem, chosen)
        differs += chosen != configs.default(problem, configs.fitting(problem, GPU))
    assert differs > len(entries) / 4


def test_a_run_that_was_cut_off_goes_on(path, monkeypatch):
    """The file is whole after every entry, and what it holds is not measured again."""
    stub, seen = tune.measure, []

    def measure(call, config):
        if len(seen) == 40:
            raise KeyboardInterrupt
        seen.append(config)
        return stub(call, config)

    monkeypatch.setattr(tune, "measure", measure)
    with pytest.raises(KeyboardInterrupt):
        tune.tune(path, GPU, 1e9, **WHAT)
    first = json.loads(path.read_text())["entries"]
    monkeypatch.setattr(tune, "measure", stub)
    tune.tune(path, GPU, 1e9, **WHAT)
    both = json.loads(path.read_text())["entries"]
    assert first and both[: len(first)] == first
    assert len({configs.Problem(**e["problem"]) for e in both}) == len(both) > len(first)


def test_8_bit_floats_are_measured_where_they_are_multiplied(path):
    """Elsewhere they are widened, and what was measured for bfloat16 holds."""
    what = WHAT | {"shapes": [(64, 256)], "rows": [1, 16], "pairs": [("mxfp4", None), ("nvfp4", None)]}
    what["dtypes"] = [torch.bfloat16, torch.float8_e4m3fn]
    for gpu, count in ((GPU, 4), (GPU._replace(scaled_target="sm_100"), 5)):
        path.unlink(missing_ok=True)
        tune.tune(path, gpu, 1e9, **what)
        measured = [configs.Problem(**e["problem"]) for e in json.loads(path.read_text())["entries"]]
        assert len(measured) == count and [p.x for p in measured if p.kernel == "gemm_scaled"] == ["e4m3"] * (count - 4)


def test_no_time_measures_nothing(path):
    tune.tune(path, GPU, 0, **WHAT)
    assert not path.exists()
