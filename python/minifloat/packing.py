"""Canonical storage: `bits` per code, little-endian along K, each row starting on a byte."""

from __future__ import annotations

import numpy as np


def packed_bytes(k: int, bits: int) -> int:
    """Bytes of one packed row of k codes."""
    return -(-k * bits // 8)


def pack(codes: np.ndarray, bits: int) -> np.ndarray:
    """(rows, K) uint8 codes -> (rows, packed_bytes(K, bits)) uint8. Code k occupies bits k*bits .. k*bits + bits - 1.

    Raises:
        ValueError: a code does not fit in `bits`.
    """
    codes = np.asarray(codes, dtype=np.uint8)
    if codes.size and int(codes.max()) >> bits:
        raise ValueError(f"pack: code {int(codes.max())} does not fit in {bits} bits")
    as_bits = (codes[..., None] >> np.arange(bits, dtype=np.uint8)) & 1
    return np.packbits(as_bits.reshape(codes.shape[0], -1), axis=1, bitorder="little")


def unpack(packed: np.ndarray, bits: int, k: int) -> np.ndarray:
    """The inverse of pack: (rows, bytes) uint8 -> (rows, K) uint8 codes.

    Raises:
        ValueError: the rows are not packed_bytes(K, bits) long.
    """
    if packed.shape[1] != packed_bytes(k, bits):
        raise ValueError(f"unpack: rows have {packed.shape[1]} bytes, but K={k} at {bits} bits takes {packed_bytes(k, bits)}")
    as_bits = np.unpackbits(packed, axis=1, count=k * bits, bitorder="little").reshape(packed.shape[0], k, bits)
    return (as_bits << np.arange(bits, dtype=np.uint8)).sum(axis=2, dtype=np.uint8)
