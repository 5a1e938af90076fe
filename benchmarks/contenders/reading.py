"""Not a layer: reads a layer's packed weights once and computes nothing. At M = 1 no layer of that width takes less."""

from __future__ import annotations

import ctypes

from ..cases import split_format
from ..ceilings import compiled
from ..environment import ROOT
from .base import Contender, Skipped, rotate
from .ours import Ours

SOURCE = ROOT / "benchmarks" / "reading.cpp"


def load():
    """reading.cpp's function of an address, a number of bytes and of threads."""
    read_once = ctypes.CDLL(str(compiled(SOURCE, "-fopenmp", "-shared", "-fPIC"))).read_once
    read_once.argtypes = [ctypes.c_void_p, ctypes.c_int64, ctypes.c_int]
    read_once.restype = ctypes.c_uint64
    return read_once


class Reading(Contender):
    """The layouts of one format of ours, as they lie in memory, read by as many threads as layers use."""

    library, arithmetic = "none", "other"
    width = 0  # nobody's peer

    def __init__(self, text: str):
        self._ours = Ours(text)
        self.name = f"reading {self._ours.width} bits"

    def build(self, w, target_bytes, threads):
        self._ours.build(w, target_bytes, threads)
        self.weight_bytes = self._ours.weight_bytes
        read_once = load()
        self.read = lambda address: read_once(address, self.weight_bytes, threads)

    def work(self, x):
        if len(x) > 1:
            raise Skipped("a limit of M = 1 alone")
        return rotate(self.read, [layer.layout.data_ptr() for layer in self._ours.layers])

    def output(self, x):
        return None

    def release(self):
        self._ours.release()
        super().release()


def contenders(formats: list[str]) -> list[Reading]:
    """One for each width: the first format of it."""
    from minifloat.formats import QuantSpec

    first = {}
    for text in formats:
        first.setdefault(QuantSpec.parse(split_format(text)[0]).format.bits, text)
    return [Reading(first[bits]) for bits in sorted(first)]
