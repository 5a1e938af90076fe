"""Linear layers, ours and the peers': `make bench`. One test per (N, K), threads, M and contender.

The first test of a cell measures all contenders that were selected in it, with timing.py's loop: pytest-benchmark runs
one function to the end before the next, and on a shared machine the ratio of two figures taken minutes apart is noise.
Every test then replays its own samples into pytest-benchmark through a clock that shows the measured times, so that its
tables, --benchmark-json and --benchmark-compare work as usual.
"""

import pytest

from benchmarks import contenders
from benchmarks.cases import read_options
from benchmarks.run import Run

pytestmark = pytest.mark.filterwarnings("ignore")  # of the peers


class Replay:
    """A clock that is set, not read."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s

    def advance(self, by_us: float) -> None:
        self.now_s += by_us * 1e-6


CLOCK = Replay()


def pytest_generate_tests(metafunc):
    options = read_options(metafunc.config.option)
    names = [contender.name for contender in contenders.everyone(options)]
    cases, ids = [], []
    for threads in options.chosen_threads:
        for (n, k), batches in options.cells:
            for m in batches:
                cases += [((n, k), m, threads, name) for name in names]
                ids += [f"{n}x{k}-M{m}-{threads}t-{name.replace(' ', '_')}" for name in names]
    metafunc.parametrize(("shape", "m", "threads", "name"), cases, ids=ids)


@pytest.fixture(scope="session")
def run(request):
    names = {item.callspec.params["name"] for item in request.session.items if hasattr(item, "callspec")}
    run = Run(read_options(request.config.option), names, log=lambda line: None)  # skips are pytest's to show
    request.config.pluginmanager.register(
        run, "minifloat run"
    )  # conftest.py saves and shows what it holds when all is done
    yield run
    run.release()


@pytest.fixture(scope="session")
def measured():
    """Cells by (shape, m, threads)."""
    return {}


@pytest.mark.benchmark(timer=CLOCK, warmup=False, disable_gc=False)
def test_linear(run, measured, benchmark, shape, m, threads, name):
    if (shape, m, threads) not in measured:
        measured[shape, m, threads] = run.cell(shape, m, threads)
    stats = measured[shape, m, threads]["contenders"].get(name)
    if stats is None:
        pytest.skip(f"{name}: {run.skipped[name]}")
    samples = iter(run.samples[shape, m, threads][name])
    benchmark.group = f"{shape[0]}x{shape[1]}, M = {m}, {threads} threads"
    benchmark.extra_info.update(stats)
    benchmark.pedantic(lambda: CLOCK.advance(next(samples)), rounds=stats["samples"], iterations=1)
