"""Drives one AXI-Stream design of a Bench with random gaps on both sides."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

import numpy as np

from .simulate import Bench

NAMES = (
    "reset",
    "s_data",
    "s_words",
    "s_valid",
    "s_last",
    "s_ready",
    "m_data",
    "m_words",
    "m_valid",
    "m_last",
    "m_ready",
)


class _Ports(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint32) for name in NAMES]


@dataclass(frozen=True)
class Answer:
    """data: (beats, words) uint32. last: (beats,) bool. clocks: how long it took."""

    data: np.ndarray
    last: np.ndarray
    clocks: int


def run_stream(
    bench: Bench,
    module: str,
    data: np.ndarray,
    last: np.ndarray,
    expected: int,
    gaps: tuple[float, float],
    seed: int = 1,
) -> Answer:
    """Feed beats and wait for `expected` beats of answer.

    Args:
        data: (beats, words) uint32. last: (beats,) tlast.
        gaps: how often, 0 <= g < 1, the source and the receiver pause.
    Raises:
        AssertionError: the design stalled, or changed a beat it was offering.
    """
    ins, outs = bench.inputs, bench.outputs
    ports = _Ports(
        ins[module, "rst_ni"][0],
        *ins[module, "s_tdata_i"],
        ins[module, "s_tvalid_i"][0],
        ins[module, "s_tlast_i"][0],
        outs[module, "s_tready_o"][0],
        *outs[module, "m_tdata_o"],
        outs[module, "m_tvalid_o"][0],
        outs[module, "m_tlast_o"][0],
        ins[module, "m_tready_i"][0],
    )
    data = np.ascontiguousarray(data, dtype=np.uint32)
    marks = np.ascontiguousarray(last, dtype=np.uint8)
    out = np.zeros((expected, ports.m_words), dtype=np.uint32)
    out_last = np.zeros(expected, dtype=np.uint8)
    library, handle = bench.raw
    received = ctypes.c_size_t(0)
    slowest = 1 / (1 - max(gaps))
    limit = int((len(data) + expected * 4096 + 10000) * slowest * 2)
    clocks = library.minifloat_stream(
        ctypes.c_void_p(handle),
        ctypes.byref(ports),
        data.ctypes.data_as(ctypes.c_void_p),
        marks.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_size_t(len(data)),
        out.ctypes.data_as(ctypes.c_void_p),
        out_last.ctypes.data_as(ctypes.c_void_p),
        ctypes.c_size_t(expected),
        ctypes.c_uint32(int(gaps[0] * 65536)),
        ctypes.c_uint32(int(gaps[1] * 65536)),
        ctypes.c_uint64(seed * 0x9E3779B97F4A7C15 & (2**64 - 1)),
        ctypes.c_uint64(limit),
        ctypes.byref(received),
    )
    if clocks == 0:
        raise AssertionError(
            f"{module} changed or withdrew output beat {received.value} while the receiver was not ready"
        )
    if clocks == limit:
        raise AssertionError(f"{module} gave {received.value} of {expected} output beats in {limit} clocks")
    return Answer(out, out_last.astype(bool), clocks)


def reset(bench: Bench, module: str, clocks: int = 4) -> None:
    """Hold rst_ni low."""
    bench.run({module: {"rst_ni": 0}}, clocks)
    bench.run({module: {"rst_ni": 1}}, 1)
