"""The packages that `make gpu` measures beside ours: what happens without them, and when one fails. No GPU is needed.

Stand-ins take the packages' place where it matters that they are called as their source wants it.
"""

import json
import subprocess
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import minifloat as mf
from minifloat.ops import cuda

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
try:
    from benchmarks.gpu import bench, measure, packages, process, report, timing
    from benchmarks.gpu.cases import BATCHES, OURS, OURS_FULL, SHAPES, TRITON
    from benchmarks.gpu.contenders import Ours
finally:
    sys.path.remove(str(ROOT))

CASES = len(BATCHES) * len(SHAPES)
X, W = torch.randn(3, 256).half(), torch.randn(32, 256).half()


def module(monkeypatch, name, **members):
    """A stand-in for a package or one of its modules."""
    made = ModuleType(name)
    vars(made).update(members)
    monkeypatch.setitem(sys.modules, name, made)
    if "." in name:
        monkeypatch.setattr(sys.modules[name.rsplit(".", 1)[0]], name.rsplit(".", 1)[1], made, raising=False)
    return made


def test_every_package_has_contenders_with_names_of_their_own():
    names = [name for package in packages.PACKAGES for name in packages.contenders_of(package, True)]
    assert len(names) == len(set(names)) == 20
    assert set(packages.PACKAGES) == {"humming-kernels", "gemlite", "torchao", "bitsandbytes"}


TARGETS = {(weight, None) for weight in ("e2m1-g128", "int4-g128", "nf4-g64", "e2m3-row", "e3m2-row", "int8-row")}
TARGETS |= {(weight, None) for weight in ("int3-g128", "int2-g128")}
TARGETS |= {(weight, "int8-row") for weight in ("int4-g128", "mxfp4", "e3m2-row", "int8-row")}


def test_our_own_cases_are_ones_that_can_be_made():
    names = [name for name, *_ in (*OURS, *OURS_FULL)]
    assert len(names) == len(set(names))
    usual = {(weight, activation) for _, weight, activation, kernels in OURS if not kernels}
    assert usual >= TARGETS, "what the targets are for is measured without --full"
    for _, weight, activation, kernels in (*OURS, *OURS_FULL):
        assert callable(Ours(weight, activation, kernels)) and mf.QuantSpec.parse(weight)
        source = (ROOT / "kernels/cuda/job.cpp").read_text()
        assert not kernels or f'name == "{kernels}"' in source, "no kernels of that name to prefer"


def test_tritons_cases_are_of_every_kind():
    made = bench.contenders("triton", False)
    assert len(made) == len(TRITON) >= 10 and all(name.startswith("ours triton ") for name in made)
    specs = [mf.QuantSpec.parse(weight) for weight, _ in TRITON]
    assert {bits for _, bits in made.values()} == {spec.format.bits for spec in specs} == {2, 3, 4, 6, 8}
    assert {spec.group_size for spec in specs} == {None, 32, 128}
    assert {activation for _, activation in TRITON} == {None, "int8-row", "float8"}


TRITON_SCRIPT = """
import json, torch
from benchmarks.gpu.contenders import Triton
from benchmarks.gpu.measure import attempt
x, w = torch.randn(3, 256).half(), torch.randn(300, 256).half()
results = []
for weight, activation in (("mxfp4", "float8"), ("int4-g128", None), ("int4-g128", "int8-row"), ("mxfp4", None)):
    contender = Triton(weight, activation)
    calls = contender(x, w, 2)
    ys = [call() for call in calls]
    assert len(calls) == 2 and torch.equal(*ys) and torch.equal(ys[0][:, :44], ys[0][:, 256:]), "outputs repeated"
    layouts = contender._prepared(w, 2)[2]
    assert layouts[0].data_ptr() != layouts[1].data_ptr(), "a weight of its own"
    results.append(attempt(contender, x[:1] if (weight, activation) == ("mxfp4", None) else x, w, 2, len))
ys[0][1, 5] += 10
try:
    contender.check(x, w, ys[0])
except ArithmeticError as error:
    results.append(str(error))
print(json.dumps(results))
"""


def test_triton_is_measured_on_its_own_kernels():
    """Interpreted, which is to be said before Triton is imported."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed: pip install triton")
    environment = process.environment(TRITON_INTERPRET="1")
    command = [sys.executable, "-c", TRITON_SCRIPT]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *results, wrong = json.loads(done.stdout)
    assert [r["kernel"] for r in results] == ["gemm_float", "gemm_float", "gemm_exact", "gemv_float"]
    for result in results:
        assert result["config"].startswith("n") and " warps" in result["config"]
        assert result["time_us"] == 2 and 0 < result["error"] < 1e-2 and "route" not in result
    assert wrong.startswith("gemm_float n") and ": wrong by " in wrong


def test_preferences_are_measured_at_three_batches():
    contenders = {"usual": (Ours("int4-g128", None), 4), "wide": (Ours("int4-g128", None, "wide"), 4)}
    found = list(measure.cases(contenders))
    assert len(found) == CASES + 3 * len(SHAPES)
    assert {case["m"] for case in found if case["contender"] == "wide"} == {1, 64, 4096}
    assert SHAPES == ((4096, 4096), (4096, 14336), (8192, 8192)), "N, K"


def test_every_call_is_warm_before_it_is_captured(monkeypatch):
    """Stand-ins for CUDA's streams, graphs and events."""
    seen = []

    class Graph:
        def replay(self):
            seen.append("replay")

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            pass

        def elapsed_time(self, after):
            return 3.0

    def graph(made, stream):
        seen.append("capture")
        return nullcontext()

    stand_ins = {"Event": Event, "CUDAGraph": Graph, "graph": graph, "stream": nullcontext, "synchronize": lambda: None}
    stand_ins["Stream"] = lambda: SimpleNamespace(synchronize=lambda: seen.append("wait"))
    for name, stand_in in stand_ins.items():
        monkeypatch.setattr(torch.cuda, name, stand_in)
    assert timing.time_us([lambda i=i: seen.append(i) for i in range(4)]) == 750
    assert seen[:10] == [0, 1, 2, 3, "wait", "capture", 0, 1, 2, 3]
    assert seen[10:] == ["replay"] * (3 + timing.REPLAYS)


def test_a_backend_that_is_not_there_is_not_measured(monkeypatch):
    monkeypatch.setattr(cuda, "state", lambda: "not built (no CUDA compiler)")
    monkeypatch.setattr(bench, "find_spec", lambda name: None)
    assert bench.not_here("ours") == "the CUDA backend is not built (no CUDA compiler)"
    assert bench.not_here("triton") == "Triton is not installed" and bench.not_here("torch") is None
    monkeypatch.setattr(cuda, "state", lambda: "available (Made Up, sm_90)")
    monkeypatch.setattr(bench, "find_spec", lambda name: name)
    assert bench.not_here("ours") is None and bench.not_here("triton") is None


def test_what_is_not_installed_is_said(monkeypatch, tmp_path, capsys):
    nobody = {"nobody": ("no_such_module", {"nobody int4": (None, 4)})}
    for place in (packages.PACKAGES, bench.PACKAGES):
        monkeypatch.setitem(place, "nobody", nobody["nobody"])
    monkeypatch.setattr(bench, "GROUPS", ("nobody",))
    written = []
    bench.measure(False, 10, None, written.append)
    assert len(written[-1]) == CASES
    assert {r["missing"] for r in written[-1]} == {"nobody is not installed (no module 'no_such_module')"}
    assert "nobody is not installed" in capsys.readouterr().out


BRITTLE = {"brittle int4": (None, 4), "brittle int8": (None, 8)}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "its process ended with SIGSEGV"),
        ("raise SystemExit(3)", "its process ended with exit status 3"),
        ("import time; time.sleep(60)", "its process was stopped after 1 s without a result"),
    ],
)
def test_a_contender_that_dies_costs_only_its_own_figures(tmp_path, capfd, code, words):
    file, seen = tmp_path / "records.jsonl", []
    first = next(measure.cases(BRITTLE)) | {"time_us": 7.0}
    file.write_text(json.dumps(first) + '\n{"contender": "brit')
    records = measure.isolated("brittle", BRITTLE, file, 60, [sys.executable, "-c", code], seen.append, stall=1)
    assert len(records) == 2 * CASES and records[0] == first == seen[0][0] and len(seen[-1]) == 2 * CASES
    assert all(r["missing"] == f"brittle: {words}" for r in records[1:])
    assert sum(r.get("fatal", False) for r in records) == 2, "each contender ended one process"
    assert f"{2 * CASES - 1} of {2 * CASES} figures are missing: brittle: {words}" in capfd.readouterr().out


def test_what_there_is_no_time_for_is_said(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    records = measure.isolated("brittle", BRITTLE, tmp_path / "records.jsonl", 0.5, command)
    assert {r["missing"] for r in records} == {"brittle: no time left of 0 s"}


def test_a_broken_context_ends_the_process_and_the_contender(monkeypatch):
    """The next process goes on with the others."""

    def make(x, w, copies):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    contenders = {"bad": (make, 4), "good": (lambda x, w, copies: [lambda: None], 4)}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(L2_cache_size=1 << 20))
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    generator, randn = torch.Generator, torch.randn
    monkeypatch.setattr(torch, "Generator", lambda device: generator())
    monkeypatch.setattr(torch, "randn", lambda *shape, device, **rest: randn(1, 1, **rest))
    monkeypatch.setattr(measure, "time_us", None)
    monkeypatch.setattr(measure.attempt, "__defaults__", (len,))
    monkeypatch.setattr(measure, "usable", lambda: False)
    first = list(measure.measured(contenders))
    assert [r["contender"] for r in first] == ["bad"] and first[0]["fatal"]
    second = list(measure.measured(contenders, {measure.key_of(r): r for r in first}))
    assert len(second) == 2 * CASES - 1
    assert all(r["time_us"] == 1 for r in second if r["contender"] == "good")
    assert {r["missing"] for r in second if r["contender"] == "bad"} == {first[0]["missing"]}


def test_wrong_results_are_not_measured(monkeypatch):
    """Ours is checked against the quantized weight and x; routes whose tests failed are left out."""
    monkeypatch.setattr(cuda, "route", lambda plan, rows, dtype: "narrow int8")
    monkeypatch.setattr(cuda, "preferred", lambda kernels: nullcontext())
    x, w = torch.randn(3, 256).half(), torch.randn(2048, 256).half()
    contender = Ours("int4-g128", "int8-row")
    calls = contender(x, w, 2)
    assert len(calls) == 2
    q, plan, layouts = contender._prepared(w, 2)
    y = calls[1]()
    assert torch.equal(y[:, :256], y[:, -256:]), "the first outputs, repeated"
    facts = contender.check(x, w, y)
    assert facts["route"] == "narrow int8" and facts["error"] < 1e-3
    y[-1, 5] += 10
    with pytest.raises(ArithmeticError, match="narrow int8: wrong by"):
        contender.check(x, w, y)
    failing = Ours("int4-g128", "int8-row", "", frozenset(["narrow.int8"]))
    with pytest.raises(measure.NotHere, match="the tests of narrow.int8 failed"):
        failing(x, w, 2)


def test_a_weight_is_decoded_once_for_its_checks(monkeypatch):
    monkeypatch.setattr(cuda, "route", lambda plan, rows, dtype: "narrow float16")
    monkeypatch.setattr(cuda, "preferred", lambda kernels: nullcontext())
    contender = Ours("int4-g128", None)
    y = contender(X, W, 1)[0]()
    monkeypatch.setattr(mf.QTensor, "dequantize", None)
    assert contender.check(X, W, y)["error"] < 1e-2


def test_a_contender_that_raises_is_recorded_by_name():
    def raises(error):
        def make(x, w, copies):
            raise error

        return make

    for error, want in (
        (AssertionError("only bfloat16\nand a trace"), "AssertionError: only bfloat16"),
        (KeyError(), "KeyError: (no message)"),
        (measure.NotHere("needs 8.9"), "needs 8.9"),
    ):
        assert measure.attempt(raises(error), X, W, 2) == {"missing": want}
    assert measure.attempt(lambda x, w, copies: [lambda: None] * copies, X, W, 5, len) == {"time_us": 5}


def test_the_report_says_why_cells_are_empty():
    record = {"contender": "brittle int4", "n": 8, "k": 8, "m": 1, "bits": 4, "missing": "AssertionError: why not"}
    result = {"gpu": "Made Up", "date": "2026-01-01", "torch": "t", "cuda": "c", "method": "none"}
    text = report.table(result | {"records": [record, record | {"m": 4}]})
    assert "| brittle int4 | - | - | 0.0 |" in text
    assert "## Not measured\n\n- brittle int4, 2 cases: AssertionError: why not\n" in text


def test_humming_is_called_as_its_source_wants_it(monkeypatch):
    made = []

    class HummingLayer(torch.nn.Module):
        def __init__(self, shape_n, shape_k, weight_config, input_config=None, torch_dtype=None):
            super().__init__()
            self.steps = [(shape_n, shape_k, weight_config, input_config, torch_dtype)]
            made.append(self)

        def load_from_unquantized(self, tensor):
            assert tensor is W
            self.steps.append("load")

        def transform(self):
            self.steps.append("transform")

        def forward(self, x):
            assert self.steps[1:] == ["load", "transform"]
            return x

    module(monkeypatch, "humming")
    module(monkeypatch, "humming.layer", HummingLayer=HummingLayer)
    make, _ = packages.PACKAGES["humming-kernels"][1]["humming int4-g128 x int8"]
    calls = make(X, W, 3)
    assert len(calls) == len(made) == 3 and all(call() is X for call in calls)
    weight = {"dtype": "int4", "group_size": 128}
    assert made[0].steps[0] == (32, 256, weight, {"dtype": "int8"}, torch.float16)
    assert made[0].steps[0][2] is not made[1].steps[0][2], "the layer adds to the dictionaries it gets"


def test_gemlite_gets_codes_that_mean_the_weight(monkeypatch):
    seen = []

    class Maker:
        def __init__(self, device, dtype):
            assert device == X.device and dtype is torch.float16

        def from_weights(self, *arguments):
            seen.append(arguments)
            return lambda x: len(arguments)

    module(monkeypatch, "gemlite")
    module(monkeypatch, "gemlite.helper", A16W4_HQQ_INT=Maker, A8W8_INT8_dynamic=Maker)
    contenders = packages.PACKAGES["gemlite"][1]
    assert [call() for call in contenders["gemlite uint4-g128"][0](X, W, 2)] == [3, 3]
    codes, scales, zeros = seen[0]
    assert codes.dtype is torch.uint8 and codes.max() == 15 and codes.data_ptr() != seen[1][0].data_ptr()
    assert scales.shape == zeros.shape == (32, 2)  # codes.numel() // scales.numel() is how gemlite finds the group size
    back = (codes.reshape(32, 2, 128) - zeros[..., None].float()) * scales[..., None].float()
    assert (back.reshape(32, 256) - W).abs().max() <= 0.51 * scales.max()
    assert contenders["gemlite int8-row x int8"][0](X, W, 1)[0]() == 1


@pytest.mark.parametrize("name", ["torchao uint4-g128", "torchao int8-row x int8"])
def test_torchao_gets_a_linear_layer(monkeypatch, name):
    configured = []

    def config(**options):
        return configured.append(options) or options

    def quantize_(layer, options):
        assert options is configured[-1] and not options["set_inductor_config"]
        layer.weight = torch.nn.Parameter(2 * layer.weight, requires_grad=False)

    names = ("Int4WeightOnlyConfig", "Int8DynamicActivationInt8WeightConfig")
    quantization = {"quantize_": quantize_} | dict.fromkeys(names, config)
    module(monkeypatch, "torchao")
    module(monkeypatch, "torchao.quantization", **quantization)
    monkeypatch.setattr(torch, "compile", lambda function, dynamic: function)
    calls = packages.contenders_of("torchao", True)[name][0](X, W, 2)
    want = X.bfloat16() @ (2 * W.bfloat16()).T
    assert all(torch.equal(call(), want) for call in calls)
    assert ("group_size" in configured[0]) == (name == "torchao uint4-g128")


def test_bitsandbytes_quantizes_x_within_the_call(monkeypatch):
    calls = []

    def int8_vectorwise_quant(v):
        calls.append(v.shape)
        return v.to(torch.int8), v.abs().amax(1), None

    functional = SimpleNamespace(
        int8_vectorwise_quant=int8_vectorwise_quant,
        int8_linear_matmul=lambda a, b: a.int() @ b.int().T,
        int8_mm_dequant=lambda sums, rows, columns: (sums.shape, rows.shape, columns.shape),
        quantize_4bit=lambda w, blocksize, quant_type: (
            torch.zeros(w.numel() // 2, 1, dtype=torch.uint8),
            (blocksize, quant_type),
        ),
    )
    module(monkeypatch, "bitsandbytes", functional=functional, matmul_4bit=lambda x, b, state: (b.shape, state))
    contenders = packages.PACKAGES["bitsandbytes"][1]
    made = contenders["bitsandbytes int8-row x int8"][0](X, W, 2)
    assert calls == [W.shape]
    assert made[1]() == ((3, 32), (3,), (32,)) and calls == [W.shape, X.shape]
    assert contenders["bitsandbytes nf4"][0](X, W, 1)[0]() == ((1, 32 * 128), (64, "nf4"))
