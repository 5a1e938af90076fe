"""What reads weights beside the layers reads all of them, once, and is timed at M = 1 only."""

import numpy as np
import pytest
import torch
from benchmarks.contenders import Skipped, reading
from benchmarks.results_file import READING


@pytest.fixture
def four_bits():
    found = reading.contenders(["e2m1-row", "int4-row", "int2-row"])
    assert [each.name for each in found] == [f"{READING}2 bits", f"{READING}4 bits"]
    found[1].build(torch.randn(64, 1024), target_bytes=100_000, threads=2)
    yield found[1]
    found[1].release()


def test_every_line_is_read_once():
    data = np.random.default_rng(0).integers(0, 256, size=3 * 16 * 64, dtype=np.uint8)
    expected = int(np.bitwise_xor.reduce(data.view(np.uint64)))
    read_once = reading.load()
    for threads in (1, 2):
        assert read_once(data.ctypes.data, len(data), threads) == expected


def test_it_takes_turns_with_the_layers(four_bits):
    assert four_bits.weight_bytes == 64 * 1024 // 2 + 64 * 4
    four_bits.work(torch.randn(1, 1024)).run()
    with pytest.raises(Skipped, match="M = 1 alone"):
        four_bits.work(torch.randn(2, 1024))
