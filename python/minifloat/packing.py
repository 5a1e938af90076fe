"""Canonical storage: `bits` per code, little-endian along K, each row starting on a byte."""

from __future__ import annotations

import numpy as np


def packed_bytes(k: int, bits: int) -> int:
    """Bytes of one packed row of k codes."""
    return -(-k * bits // 8)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """(rows, K) uint8 codes -> (rows, packed_bytes(K, bits)) uint8. Code k occupies bits k*bits .. k*bits + bits - 1.

    Raises:
        ValueError: a code does not fit in `bits`, or bits is not 1..8.
    """
    codes = np.asarray(codes)
    _check_bits(bits, "pack")
    for code in (codes.min(initial=0), codes.max(initial=0)):  # before the cast to uint8, which would wrap
        if code < 0 or int(code) >> bits:
            raise ValueError(f"pack: code {int(code)} does not fit in {bits} bits")
    rows, k = codes.shape
    as_bits = (codes.astype(np.uint8)[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(as_bits.reshape(rows, k * bits), axis=1, bitorder="little")


def unpack(packed: np.ndarray, bits: int, k: int) -> np.ndarray:
    """The inverse of pack: (rows, bytes) uint8 -> (rows, K) uint8 codes.

    Raises:
        ValueError: the rows are not packed_bytes(K, bits) long, or bits is not 1..8.
    """
    _check_bits(bits, "unpack")
    if packed.shape[1] != packed_bytes(k, bits):
        raise ValueError(
            f"unpack: rows have {packed.shape[1]} bytes, but K={k} at {bits} bits takes {packed_bytes(k, bits)}"
        )
    as_bits = np.unpackbits(packed, axis=1, count=k * bits, bitorder="little").reshape(packed.shape[0], k, bits)
    return (as_bits << np.arange(bits, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)


def _check_bits(bits: int, caller: str) -> None:
    if not 1 <= bits <= 8:
        raise ValueError(f"{caller}: codes have 1 to 8 bits, got bits={bits}")
