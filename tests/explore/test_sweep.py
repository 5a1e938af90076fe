"""Sweeps: every cell once, whatever interrupts them; on this process, on processes of this machine, on a cluster."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("distributed", reason="sweeps need dask.distributed: pip install 'minifloat[explore]'")

from minifloat.explore.cells import Cell, grid
from minifloat.explore.store import Store, read
from minifloat.explore.sweep import sweep

HERE = Path(__file__).parent
TASK = f"{HERE / 'tiny_task.py'}:load"
CELLS = grid(TASK, ["int3-row", "int4-row", "e2m1-row"], ["same", None], ["nearest"])


def without_times(results: dict) -> dict:
    return {cell: {k: v for k, v in r.items() if "time" not in k} for cell, r in results.items()}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What a sweep that nothing interrupts finds."""
    path = tmp_path_factory.mktemp("sweep") / "results.jsonl"
    with Store(path) as store:
        assert sweep(CELLS, store) == {}
    return without_times(read(path))


def test_measures_every_cell(expected):
    assert list(expected) == CELLS
    float32 = expected[CELLS[0]]
    assert float32["metrics"]["cosine"] == pytest.approx(1, abs=1e-6)
    assert float32["model_bytes"] == 4 * (32 * 64 + 64 + 64 * 8 + 8) and float32["bits_per_weight"] == 32
    int4 = expected[Cell(TASK, "int4-row", "int4-row")]
    assert 0.9 < int4["metrics"]["cosine"] < 1
    # packed codes, a float32 scale a row, float32 biases
    assert int4["model_bytes"] == (32 * 64 + 64 * 8) // 2 + 4 * (64 + 8) + 4 * (64 + 8)
    assert int4["macs"] == 32 * (32 * 64 + 64 * 8)
    assert int4["luts_per_mac"] == 28
    assert expected[Cell(TASK, "int4-row", None)]["luts_per_mac"] is None


def test_finished_cells_are_not_measured_again(tmp_path, expected, monkeypatch):
    measured = tmp_path / "measured"
    monkeypatch.setenv("MEASURED", str(measured))
    with Store(tmp_path / "results.jsonl") as store:
        sweep(CELLS[:3], store)
        assert measured.read_text() == "xxx"
        seen = []
        sweep(CELLS, store, on_result=lambda cell, result: seen.append(cell))
        assert seen == CELLS[3:]
        assert measured.read_text() == "x" * len(CELLS)
        sweep(CELLS, store)
    assert measured.read_text() == "x" * len(CELLS)
    assert without_times(read(tmp_path / "results.jsonl")) == expected


SWEEP = """
import sys
from pathlib import Path
from minifloat.explore.cells import grid
from minifloat.explore.store import Store
from minifloat.explore.sweep import sweep
cells = grid(sys.argv[2], ["int3-row", "int4-row", "e2m1-row"], ["same", None], ["nearest"])
with Store(Path(sys.argv[1])) as store:
    sweep(cells, store)
"""


@pytest.mark.parametrize("lines", [1, 4])
def test_a_killed_sweep_resumes_with_nothing_lost_or_repeated(tmp_path, expected, lines):
    path, measured = tmp_path / "results.jsonl", tmp_path / "measured"
    process = subprocess.Popen(
        [sys.executable, "-c", SWEEP, str(path), TASK], env=os.environ | {"MEASURED": str(measured), "DELAY_S": "0.3"}
    )
    deadline = time.monotonic() + 120
    while not path.exists() or path.read_bytes().count(b"\n") < lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = read(path)
    assert lines <= len(found) < len(CELLS)
    before = path.read_bytes()
    begun = len(measured.read_text())
    with pytest.MonkeyPatch.context() as patch, Store(path) as store:
        patch.setenv("MEASURED", str(measured))
        assert sweep(CELLS, store) == {}
    whole_lines = before[: before.rfind(b"\n") + 1]
    assert path.read_bytes().startswith(whole_lines)
    assert without_times(read(path)) == expected
    # Only cells whose results had not been stored were measured a second time.
    assert len(measured.read_text()) == begun + len(CELLS) - len(found)


def test_a_failed_cell_is_named_and_tried_again(tmp_path, expected):
    bad = Cell(TASK, "int4-g24", "int4-row")
    with Store(tmp_path / "results.jsonl") as store:
        failed = sweep([CELLS[0], bad, CELLS[1]], store)
        assert list(failed) == [bad] and "24" in str(failed[bad])
        assert list(store.results) == [CELLS[0], CELLS[1]]
        assert list(sweep([bad], store)) == [bad]


def test_workers_of_their_own_and_clusters_find_the_same(tmp_path, expected):
    from distributed import LocalCluster

    with Store(tmp_path / "processes.jsonl") as store:
        assert sweep(CELLS[:3], store, workers=2) == {}
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address="127.0.0.1:0") as cluster,
        Store(tmp_path / "cluster.jsonl") as store,
    ):
        assert sweep(CELLS[:3], store, address=cluster.scheduler_address) == {}
    for name in ("processes", "cluster"):
        found = without_times(read(tmp_path / f"{name}.jsonl"))
        assert found == {cell: expected[cell] for cell in CELLS[:3]}
