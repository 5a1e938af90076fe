"""Mac: every pair of codes of every format, at every depth, against the integers of the formats' grids."""

import numpy as np
import pytest

from minifloat.formats import Format
from minifloat.rtl.mac import mac
from minifloat.rtl.simulate import Bench
from minifloat.rtl.variants import fitting

from .support import all_pairs, hardware_formats, need_simulator, running_sums

BLOCK = 1024  # products between two clears: the K that the accumulators are made for
MIXED = [
    *[("e2m1", "e4m3fn"), ("int4", "e4m3fn"), ("e2m1", "int8"), ("e2m1", "int4"), ("int4", "int8"), ("e4m3fn", "int5")],
    *[
        ("nf4", "int8"),
        ("nf4", "e4m3fn"),
        ("e2m1", "nf4"),
        ("ternary", "int8"),
        ("binary", "e4m3fn"),
        ("flint4", "e3m2"),
    ],
    *[
        ("uint4", "int8"),
        ("int3", "uint8"),
        ("ue4m4", "int4"),
        ("uint8", "ue3m3"),
        ("e5m2", "e8m0fnu"),
        ("e2m1", "e8m0fnu"),
    ],
    *[
        ("e5m2", "e4m3fn"),
        ("e4m3ieee", "e4m3fnuz"),
        ("e3m0", "uint1"),
        ("int1", "e2m3"),
        ("uflint4", "uflint4"),
        ("e7m0", "int8"),
    ],
]


def stimulus_of(d, specials: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Every pair of codes in blocks of 1024 products: w, a and clear for each beat."""
    w, a = all_pairs(d.pair.weight.name, d.pair.activation.name, specials)
    blocks = -(-len(w) // BLOCK)
    w, a = (np.resize(x, blocks * BLOCK).reshape(blocks, BLOCK) for x in (w, a))
    clear = np.zeros((blocks, BLOCK + 1), dtype=bool)
    clear[:, 0] = True
    w, a = (np.pad(x, ((0, 0), (1, 0))).ravel() for x in (w, a))  # codes 0 ride on the clear beat and must not count
    return w, a, clear.ravel()


def sums_of(d, stimulus) -> np.ndarray:
    """The accumulator after each beat, as words."""
    return running_sums(d.pair.weight.name, d.pair.activation.name, *stimulus, d.accumulator_bits)


def check(designs, specials: bool) -> None:
    """Feed every pair of codes to each design, in blocks of 1024 products, and compare after every beat."""
    modules = [d.module(f"dut{i}") for i, d in enumerate(designs)]
    stimuli = [stimulus_of(d, specials) for d in designs]
    beats = max(len(s[0]) for s in stimuli) + 4
    drive = {}
    for m, stimulus in zip(modules, stimuli, strict=True):
        w, a, clear = (np.resize(x, beats) for x in stimulus)
        drive[m.name] = {"w_i": w, "a_i": a, "clear_i": clear, "valid_i": np.ones(beats)}
    with Bench(modules) as bench:
        result = bench.run(drive, beats)
        for d, m, stimulus in zip(designs, modules, stimuli, strict=True):
            w, a, _ = stimulus
            got = bench.output(result, m.name, "acc_o")[d.depth - 1 :][: len(w)]
            wrong = np.flatnonzero((got != sums_of(d, stimulus)).any(axis=1))
            where = wrong[:1]
            assert not len(wrong), (
                f"{d.pair} {d.pair.circuit} depth {d.depth}: beat {where}, codes {w[where]}, {a[where]}"
            )


def supported(weight: str, activation: str) -> bool:
    return not (weight == activation == "e8m0fnu")  # 519 bits


@pytest.mark.parametrize("depth", [1, 2, 3, 4])
def test_every_format_against_itself(depth):
    need_simulator()
    names = [n for i, n in enumerate(hardware_formats()) if supported(n, n) and (depth == 1 or i % 3 == depth - 2)]
    check([mac(n, n, depth=depth) for n in names], specials=False)


def test_mixed_pairs():
    need_simulator()
    check([mac(w, a, depth=1 + i % 4) for i, (w, a) in enumerate(MIXED)], specials=False)


def test_every_circuit():
    need_simulator()
    designs = []
    names = ("int2", "int3", "int5", "uint6", "e2m1", "e3m2", "e2m3", "ternary", "e3m4", "e4m3fn", "e6m0")
    pairs = [(n, n) for n in names] + MIXED[::2]
    for i, (w, a) in enumerate(pairs):
        probe = mac(w, a)
        designs += [mac(w, a, depth=1 + i % 4, variant=v) for v in fitting(probe.pair.w, probe.pair.a)[1:]]
    check(designs, specials=False)


def test_special_codes_read_as_zero():
    need_simulator()
    pairs = [
        ("e4m3fn", "e4m3fn"),
        ("e5m2", "e5m2"),
        ("e4m3fnuz", "e5m2fnuz"),
        ("e3m4ieee", "int4"),
        ("e8m0fnu", "e2m1"),
    ]
    check([mac(w, a, depth=1 + i, zero_specials=True) for i, (w, a) in enumerate(pairs[:4])], specials=True)
    check([mac(*pairs[4], zero_specials=True)], specials=True)


def test_valid_and_clear_travel_with_the_products():
    need_simulator()
    rng = np.random.default_rng(0)
    beats = 4000
    designs = [mac("e2m1", "e4m3fn", depth=d) for d in (1, 2, 3, 4)]
    modules = [d.module(f"dut{d.depth}") for d in designs]
    valid, clear = rng.random(beats) < 0.6, rng.random(beats) < 0.1
    clear[:4] = True
    w, a = rng.integers(0, 16, beats), rng.integers(0, 127, beats)
    drive = {m.name: {"w_i": w, "a_i": a, "clear_i": clear, "valid_i": valid} for m in modules}
    f, g = Format.parse("e2m1"), Format.parse("e4m3fn")
    total, want = 0, []
    for i in range(beats):
        total = 0 if clear[i] else total + int(f.grid[w[i]] * g.grid[a[i]]) * int(valid[i])
        want.append(total)
    with Bench(modules) as bench:
        result = bench.run(drive, beats)
        for d, m in zip(designs, modules, strict=True):
            late = d.depth - 1
            got = bench.output(result, m.name, "acc_o")[late:, 0]
            bits = d.accumulator_bits
            assert bits <= 33
            low = np.array(want[: beats - late]) & 0xFFFFFFFF
            assert (got == low).all()
            taken = bench.output(result, m.name, "valid_o")[late:, 0]
            assert (taken == (valid & ~clear)[: beats - late]).all()


def test_refusals_say_what_would_work():
    with pytest.raises(ValueError, match="limit is 512: use formats with fewer exponent bits"):
        mac("e8m0fnu", "e8m0fnu").module()
    with pytest.raises(ValueError, match="codebooks of up to 4 bits"):
        mac("dynamic8", "int8").module()
    with pytest.raises(ValueError, match="at least one product"):
        mac("int4", "int4", k=0).module()
    with pytest.raises(ValueError, match="depth of 1 to 4"):
        mac("int4", "int4", depth=5)
    with pytest.raises(ValueError, match="does not fit int4 x int4: choose one of booth"):
        mac("int4", "int4", variant="mixed").module()
