"""The netlist that yosys maps to LUTs and carry chains gives the same sums as the emulator's integers."""

from minifloat.rtl import tools
from minifloat.rtl.assets import asset
from minifloat.rtl.mac import mac
from minifloat.rtl.module import Module
from minifloat.rtl.simulate import Bench
from minifloat.rtl.synth import netlist

from .support import need, need_simulator
from .test_mac import stimulus_of, sums_of

PAIRS = [("e2m1", "e2m1", 1), ("e4m3fn", "e4m3fn", 1), ("int8", "int8", 3), ("e2m1", "e4m3fn", 2)]


def test_mapped_netlists_accumulate_exactly():
    need(tools.yosys)
    need_simulator()
    designs = [mac(w, a, depth=depth) for w, a, depth in PAIRS]
    modules = [d.module(f"net{i}") for i, d in enumerate(designs)]
    sources = [asset("xilinx_cells.v").read_text(), *(netlist(m) for m in modules)]
    shells = [Mapped(m.name, m.comment, m.ports) for m in modules]
    stimuli = [stimulus_of(d, specials=False) for d in designs]
    beats = max(len(s[0]) for s in stimuli) + 4
    drive = {}
    for m, (w, a, clear) in zip(modules, stimuli, strict=True):
        pad = beats - len(w)
        ports = {"w_i": w, "a_i": a, "clear_i": clear, "valid_i": clear | True}
        drive[m.name] = {name: [*values, *[0] * pad] for name, values in ports.items()}
    with Bench(shells, sources) as bench:
        result = bench.run(drive, beats)
        for d, m, stimulus in zip(designs, modules, stimuli, strict=True):
            got = bench.output(result, m.name, "acc_o")[d.depth - 1 :][: len(stimulus[0])]
            assert (got == sums_of(d, stimulus)).all(), d.name


class Mapped(Module):
    """The ports of a module whose text comes from elsewhere."""

    def render(self) -> str:
        return ""
