"""Clock frequency by place-and-route for a Lattice ECP5, the one FPGA family with an open flow on PyPI."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from . import tools
from .module import Module

DEVICE = ["--85k", "--package", "CABGA756", "--speed", "8"]


def between_registers(m: Module) -> Module:
    """A top with three pins: a shift register feeds m's inputs, another takes its outputs; both through registers.

    So every path of m starts and ends at a register, as inside a larger design.
    """
    ins = [p for p in m.ports if p.direction == "input" and p.name != "clk_i"]
    outs = [p for p in m.ports if p.direction == "output"]
    n_in, n_out = sum(p.bits for p in ins), sum(p.bits for p in outs)
    top = Module("pnr_top", [f"{m.name} between registers, to find its clock frequency by place-and-route."])
    for port in ("clk_i", "d_i"):
        top.input(port)
    top.output("q_o")
    for name, bits in (("in_sr", n_in), ("in_q", n_in), ("out", n_out), ("out_q", n_out), ("out_sr", n_out + 1)):
        top.wire(name, bits)
    top.wire("load_q", 1)
    pins, used = {"clk_i": "clk_i"}, {"in_q": 0, "out": 0}
    for p in ins + outs:
        name = "in_q" if p.direction == "input" else "out"
        total, low = (n_in if name == "in_q" else n_out), used[name]
        whole = name if total == 1 else f"{name}[{low}]"
        pins[p.name] = f"{name}[{low + p.bits - 1}:{low}]" if p.bits > 1 else whole
        used[name] = low + p.bits
    top.instance(m.name, "u_dut", pins)
    top.clocked(
        [
            f"in_sr <= {{in_sr[{n_in - 2}:0], d_i}};" if n_in > 1 else "in_sr <= d_i;",
            "in_q <= in_sr;",
            f"load_q <= in_sr[{n_in - 1}];" if n_in > 1 else "load_q <= in_sr;",
            "out_q <= out;",
            "if (load_q) out_sr <= {1'b0, out_q};",
            f"else out_sr <= {{1'b0, out_sr[{n_out}:1]}};",
        ]
    )
    top.assign("q_o", "out_sr[0]")
    return top


def fmax(m: Module, sources: list[str] | None = None, files: dict[str, str] | None = None) -> float:
    """MHz on an ECP5 of the fastest speed grade.

    Raises:
        tools.MissingTool: yosys or nextpnr-ecp5 is missing.
    """
    yosys, nextpnr = tools.yosys(), tools.nextpnr_ecp5()
    text = "\n".join([*(sources or []), m.render(), between_registers(m).render()])
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "design.sv").write_text(text)
        for name, content in (files or {}).items():
            (place / name).write_text(content)
        script = "read_verilog -sv design.sv; synth_ecp5 -top pnr_top -json netlist.json"
        tools.run([*yosys, "-q", "-p", script], place)
        options = ["--freq", "400", "--timing-allow-fail", "--lpf-allow-unconstrained", "--seed", "1"]
        tools.run([*nextpnr, "-q", *DEVICE, "--json", "netlist.json", *options, "--report", "report.json"], place)
        clocks = json.loads((place / "report.json").read_text())["fmax"]
    return max(clock["achieved"] for clock in clocks.values())
