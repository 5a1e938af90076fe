"""Dot: random and extreme beats, sums back to back, gaps, and a reset in mid-stream."""

import numpy as np
import pytest

from minifloat.formats import Format
from minifloat.rtl.dot import Dot
from minifloat.rtl.mac import Pair
from minifloat.rtl.simulate import Bench, words_of

from .support import corner_codes, need_simulator

CASES = [
    ("e2m1", "e2m1", 16, 1),
    ("e4m3fn", "e4m3fn", 16, 2),
    ("int8", "int8", 16, 3),
    ("e2m3", "e2m3", 5, 4),
    ("int4", "e4m3fn", 8, 3),
    ("e2m1", "int8", 1, 2),
    ("uint4", "uint8", 7, 1),
    ("e5m2", "e5m2", 3, 4),
    ("nf4", "int8", 4, 2),
    ("int1", "uint1", 32, 1),
]


def dot(weight, activation, lanes, depth=1, k=1024) -> Dot:
    return Dot(Pair(Format.parse(weight), Format.parse(activation)), lanes, k, depth)


def pack_lanes(codes: np.ndarray, bits: int) -> np.ndarray:
    """(beats, lanes) codes -> (beats, words) uint32, lane 0 lowest."""
    total = sum(codes[:, i].astype(object) << (bits * i) for i in range(codes.shape[1]))
    return words_of(total, bits * codes.shape[1])


def stimulus(d: Dot, beats_a_sum: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """(sums * beats, lanes) codes: corners at full K, then random ones."""
    w, a = (corner_codes(f, beats_a_sum * d.lanes, rng) for f in (d.pair.weight, d.pair.activation))
    pairs = [(x, y) for x in w for y in a]
    return tuple(np.stack([p[i] for p in pairs]).reshape(-1, d.lanes) for i in (0, 1))


@pytest.fixture(scope="module")
def bench():
    need_simulator()
    designs = [dot(*case[:3], depth=case[3]) for case in CASES]
    modules = [d.module(f"dut{i}") for i, d in enumerate(designs)]
    parts = [p.render() for d in designs for p in d.parts()]
    with Bench(modules, parts) as made:
        yield made, designs


@pytest.mark.parametrize("gaps", [0.0, 0.4])
def test_sums_are_exact(bench, gaps):
    made, designs = bench
    rng = np.random.default_rng(1)
    drive, wants = {}, {}
    for i, d in enumerate(designs):
        beats_a_sum = d.k // d.lanes
        w, a = stimulus(d, beats_a_sum, rng)
        products = (d.pair.weight.grid[w].astype(object) * d.pair.activation.grid[a].astype(object)).sum(axis=1)
        sums = np.cumsum(products.reshape(-1, beats_a_sum), axis=1).ravel()
        first = np.arange(len(w)) % beats_a_sum == 0
        when = np.flatnonzero(rng.random(int(len(w) * (1 + 2 * gaps)) + 64) >= gaps)[: len(w)]
        n = when[-1] + 8
        spread = {key: np.zeros((n, *np.shape(v)[1:]), np.uint32) for key, v in (("w", pack_lanes(w, d.pair.w.bits)),
                  ("a", pack_lanes(a, d.pair.a.bits)), ("first", first), ("valid", first))}  # fmt: skip
        spread["w"][when], spread["a"][when] = pack_lanes(w, d.pair.w.bits), pack_lanes(a, d.pair.a.bits)
        spread["first"][when], spread["valid"][when] = first, 1
        drive[f"dut{i}"] = spread
        wants[f"dut{i}"] = words_of(sums, d.accumulator_bits)
    beats = max(len(s["valid"]) for s in drive.values())
    padded = {name: {f"{p}_i": _pad(v, beats) for p, v in s.items()} | {"rst_ni": 1} for name, s in drive.items()}
    result = made.run(padded, beats)
    for i, d in enumerate(designs):
        valid = made.output(result, f"dut{i}", "valid_o")[:, 0] == 1
        got = made.output(result, f"dut{i}", "acc_o")[valid]
        want = wants[f"dut{i}"]
        assert len(got) == len(want), f"{d.pair}: {len(got)} sums for {len(want)} beats"
        wrong = np.flatnonzero((got != want).any(axis=1))
        assert not len(wrong), f"{d.pair} x {d.lanes} lanes: first difference at beat {wrong[:1]}"


def test_reset_in_mid_stream_drops_what_is_on_its_way(bench):
    made, designs = bench
    beats = 40
    reset = np.ones(beats)
    reset[20:26] = 0
    drive = {f"dut{i}": {"valid_i": np.arange(beats) < 26, "first_i": 1, "rst_ni": reset} for i in range(len(designs))}
    result = made.run(drive, beats)
    for i in range(len(designs)):
        valid = made.output(result, f"dut{i}", "valid_o")[:, 0]
        assert valid[8:20].all() and not valid[20:].any()


def _pad(values: np.ndarray, beats: int) -> np.ndarray:
    return np.concatenate([values, np.zeros((beats - len(values), *values.shape[1:]), values.dtype)])
