"""The canonical bitstream: round trips at every width and length, and bit positions against one big integer a row."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minifloat.packing import pack, packed_bytes, unpack

WIDTHS = range(1, 9)


def codes_of(bits: int, rows: int, k: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1 << bits, (rows, k), dtype=np.uint8)


def row_as_integer(row: np.ndarray, bits: int) -> int:
    """Code k starts at bit k * bits: the row is one number in base 2**bits, lowest digit first."""
    return sum(int(code) << (k * bits) for k, code in enumerate(row))


@given(st.sampled_from(WIDTHS), st.integers(0, 4), st.integers(0, 70), st.integers(0, 2**32))
def test_round_trip_and_bit_positions(bits, rows, k, seed):
    codes = codes_of(bits, rows, k, seed)
    packed = pack(codes, bits)
    assert packed.dtype == np.uint8 and packed.shape == (rows, packed_bytes(k, bits))
    for row, stored in zip(codes, packed, strict=True):
        assert int.from_bytes(stored.tobytes(), "little") == row_as_integer(row, bits)
    back = unpack(packed, bits, k)
    assert back.dtype == np.uint8
    np.testing.assert_array_equal(back, codes)


@pytest.mark.parametrize("bits", WIDTHS)
def test_every_length_to_two_words(bits):
    for k in range(130):
        codes = codes_of(bits, 2, k, seed=k)
        np.testing.assert_array_equal(unpack(pack(codes, bits), bits, k), codes)


@pytest.mark.parametrize("bits", WIDTHS)
def test_rows_take_the_least_whole_bytes(bits):
    for k in range(40):
        assert (packed_bytes(k, bits) - 1) * 8 < k * bits <= packed_bytes(k, bits) * 8
    assert packed_bytes(4096, bits) == 512 * bits


@pytest.mark.parametrize("bits", WIDTHS)
def test_padding_is_zero(bits):
    packed = pack(np.full((3, 5), (1 << bits) - 1, np.uint8), bits)
    for row in packed:
        assert int.from_bytes(row.tobytes(), "little") == (1 << 5 * bits) - 1


def test_worked_examples():
    """Those of docs/formats.md."""
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3]], np.uint8), 4), [[0x21, 0x03]])
    np.testing.assert_array_equal(pack(np.array([[1, 2, 3, 4, 5]], np.uint8), 3), [[0b11_010_001, 0b0_101_100_0]])


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_layouts_and_integer_types(kind):
    codes = codes_of(3, 10, 12).astype(kind)
    for view in (codes.T, codes[::2], codes[:, 1::3], np.asfortranarray(codes)):
        np.testing.assert_array_equal(unpack(pack(view, 3), 3, view.shape[1]), view)


@pytest.mark.parametrize("bits", WIDTHS)
def test_codes_that_do_not_fit(bits):
    pack(np.full((1, 3), (1 << bits) - 1), bits)
    for bad in (1 << bits, 256, 1000, -1):
        with pytest.raises(ValueError, match=f"pack: code {bad} does not fit in {bits} bits"):
            pack(np.array([[0, bad, 0]]), bits)


@pytest.mark.parametrize("bits", [0, 9, -1])
def test_widths_out_of_range(bits):
    with pytest.raises(ValueError, match=f"pack: codes have 1 to 8 bits, got bits={bits}"):
        pack(np.zeros((1, 2), np.uint8), bits)
    with pytest.raises(ValueError, match=f"unpack: codes have 1 to 8 bits, got bits={bits}"):
        unpack(np.zeros((1, 2), np.uint8), bits, 2)


def test_rows_of_the_wrong_length():
    packed = pack(codes_of(3, 2, 10), 3)
    for k in (7, 11, 20):
        with pytest.raises(ValueError, match=f"unpack: rows have 4 bytes, but K={k} at 3 bits takes"):
            unpack(packed, 3, k)
