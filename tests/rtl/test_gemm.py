"""Gemm: tiles back to back and with gaps, corners at full K, and a reset in mid-stream."""

import numpy as np
import pytest

from minifloat.formats import Format
from minifloat.rtl.gemm import Gemm
from minifloat.rtl.mac import Pair
from minifloat.rtl.simulate import Bench, integers_of

from .support import corner_codes, need_simulator
from .test_dot import pack_lanes

CASES = [
    ("e2m1", "e2m1", 3, 4, 64, 1),
    ("e4m3fn", "e4m3fn", 2, 3, 64, 2),
    ("int8", "int8", 4, 2, 64, 3),
    ("int4", "e4m3fn", 1, 1, 16, 1),
    ("nf4", "int8", 2, 2, 16, 2),
    ("e2m3", "e3m2", 3, 3, 16, 3),
    ("uint4", "uint8", 2, 1, 16, 1),
    ("e8m0fnu", "e2m1", 2, 2, 16, 2),
]


def gemm(weight, activation, rows, cols, k, depth) -> Gemm:
    return Gemm(Pair(Format.parse(weight), Format.parse(activation)), rows, cols, k, depth)


@pytest.fixture(scope="module")
def bench():
    need_simulator()
    designs = [gemm(*case) for case in CASES]
    parts = [p.render() for d in designs for p in d.parts()]
    with Bench([d.module() for d in designs], parts) as made:
        yield made, designs


def tiles_of(d: Gemm, rng) -> list[tuple[np.ndarray, np.ndarray]]:
    """(K, rows) and (K, cols) codes: corners at full K, then tiles as short as they may be."""
    shortest = 2 * d.rows - 1
    out = []
    for k in (d.k, shortest, shortest, shortest + 3):
        a, w = (corner_codes(f, k * n, rng) for f, n in ((d.pair.activation, d.rows), (d.pair.weight, d.cols)))
        out += [(x.reshape(k, d.rows), y.reshape(k, d.cols)) for x in a for y in w]
    return out


def expected(d: Gemm, tiles) -> np.ndarray:
    """(tiles, rows, cols) exact."""
    grids = [(d.pair.activation.grid[a].astype(object), d.pair.weight.grid[w].astype(object)) for a, w in tiles]
    return np.stack([a.T @ w for a, w in grids])


@pytest.mark.parametrize("gaps", [0.0, 0.3])
def test_tiles_are_exact(bench, gaps):
    made, designs = bench
    rng = np.random.default_rng(5)
    drive, wants = {}, {}
    for d in designs:
        tiles = tiles_of(d, rng)
        a, w = (np.concatenate([t[i] for t in tiles]) for i in (0, 1))
        last = np.concatenate([np.arange(len(t[0])) == len(t[0]) - 1 for t in tiles])
        when = np.flatnonzero(rng.random(2 * len(a) + 64) >= gaps)[: len(a)]
        size = when[-1] + 1
        ports = {"valid_i": np.zeros(size), "last_i": np.zeros(size)}
        for name, codes, bits in (("a_i", a, d.pair.a.bits), ("w_i", w, d.pair.w.bits)):
            packed = pack_lanes(codes, bits)
            ports[name] = np.zeros((size, packed.shape[1]), np.uint32)
            ports[name][when] = packed
        ports["valid_i"][when], ports["last_i"][when] = 1, last
        drive[d.name], wants[d.name] = ports, expected(d, tiles)
    beats = max(len(p["valid_i"]) for p in drive.values()) + 32
    padded = {}
    for name, ports in drive.items():
        padded[name] = {
            p: np.concatenate([v, np.zeros((beats - len(v), *v.shape[1:]), v.dtype)]) for p, v in ports.items()
        }
        padded[name]["rst_ni"] = np.arange(beats) >= 0
    made.run({name: {"rst_ni": 0} for name in drive}, 3)
    result = made.run(padded, beats)
    for d in designs:
        got = read_columns(made, result, d)
        want = wants[d.name]
        for j, column in enumerate(got):
            assert len(column) == want.shape[0] * d.rows, f"{d.name}: column {j} gave {len(column)} results"
            assert (column == want[:, :, j].ravel()).all(), f"{d.name}: column {j} differs"


def read_columns(made, result, d: Gemm) -> list[np.ndarray]:
    """The valid results of each column, in order."""
    bits = d.accumulator_bits
    valid = integers_of(made.output(result, d.name, "c_valid_o"), d.cols, False)
    every = integers_of(made.output(result, d.name, "c_o").astype(object), 32 * result.shape[1] + 64, False)
    out = []
    for j in range(d.cols):
        values = every[(valid >> j & 1) == 1] >> (bits * j) & ((1 << bits) - 1)
        out.append(np.where(values >= 1 << (bits - 1), values - (1 << bits), values))
    return out


def test_reset_in_mid_stream(bench):
    made, designs = bench
    rng = np.random.default_rng(6)
    made.run({d.name: {"rst_ni": 1, "valid_i": 1, "a_i": 1, "w_i": 1} for d in designs}, 7)
    made.run({d.name: {"rst_ni": 0} for d in designs}, 8)
    for d in designs:
        k = 2 * d.rows - 1
        a, w = (
            rng.choice(np.flatnonzero(f.is_number), (k, n))
            for f, n in ((d.pair.activation, d.rows), (d.pair.weight, d.cols))
        )
        beats = k + 24
        ports = {"valid_i": np.arange(beats) < k, "last_i": np.arange(beats) == k - 1, "rst_ni": 1}
        for name, codes, bits in (("a_i", a, d.pair.a.bits), ("w_i", w, d.pair.w.bits)):
            packed = pack_lanes(codes, bits)
            ports[name] = np.concatenate([packed, np.zeros((24, packed.shape[1]), np.uint32)])
        others = {o.name: {"rst_ni": 1} for o in designs if o is not d}
        result = made.run({d.name: ports, **others}, beats)
        want = expected(d, [(a, w)])[0]
        got = read_columns(made, result, d)
        assert all((got[j] == want[:, j]).all() and len(got[j]) == d.rows for j in range(d.cols)), d.name


def test_refusals_say_what_would_work():
    with pytest.raises(ValueError, match="need 15 beats"):
        gemm("int4", "int4", 8, 2, 10, 1)
    with pytest.raises(ValueError, match="at least one of each"):
        gemm("int4", "int4", 0, 2, 10, 1)
