"""Area by yosys: an estimate of an open tool for AMD UltraScale+, without DSP blocks. No vendor tool is involved."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from . import tools
from .module import Module, span

FLOW = "synth_xilinx -family xcup -nodsp -abc9 -noiopad -noclkbuf"


@dataclass(frozen=True)
class Area:
    """Cells of one module and what it instantiates.

    lut: LUT1 to LUT6. lc: yosys' estimate of logic cells, where two small LUTs share one. carry: CARRY4.
    """

    lut: int
    lc: int
    ff: int
    carry: int
    muxf: int
    ram: int

    def as_dict(self) -> dict:
        return asdict(self)


def area(
    modules: list[Module], sources: list[str] | None = None, files: dict[str, bytes] | None = None
) -> dict[str, Area]:
    """The area of each module by name; all are synthesised in one run.

    Args:
        modules: tops. sources: text of what they instantiate. files: further files by name, for $readmemh.
    Raises:
        tools.MissingTool: yosys is missing.
    """
    command = tools.yosys()
    text = "\n".join([*(sources or []), *(m.render() for m in modules)])
    top = modules[0].name
    if len(modules) > 1:
        top = "every_design"
        text += _around(modules, top)
    flatten = " -flatten" if sources else ""
    script = f"read_verilog -sv design.sv; {FLOW}{flatten} -top {top}; tee -q -o stat.json stat -json -tech xilinx"
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "design.sv").write_text(text)
        for name, content in (files or {}).items():
            (place / name).write_bytes(content)
        tools.run([*command, "-q", "-p", script], place)
        stat = (place / "stat.json").read_text()
    report = json.loads(stat[stat.index("{") :])["modules"]
    return {m.name: _read(report["\\" + m.name]) for m in modules}


def netlist(m: Module) -> str:
    """The mapped netlist of one module as Verilog: LUTs, CARRY4 and flip-flops of the family."""
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "design.sv").write_text(m.render())
        script = f"read_verilog -sv design.sv; {FLOW} -top {m.name}; write_verilog -noattr netlist.v"
        tools.run([*tools.yosys(), "-q", "-p", script], place)
        return (place / "netlist.v").read_text()


def _read(module: dict) -> Area:
    cells = module.get("num_cells_by_type", {})

    def total(*starts: str) -> int:
        return sum(count for name, count in cells.items() if name.startswith(starts))

    lc, ram = int(module.get("estimated_num_lc", 0)), total("RAMB", "RAM32", "RAM64", "RAM128", "RAM256")
    return Area(total("LUT"), lc, total("FD"), total("CARRY4"), total("MUXF"), ram)


def _around(modules: list[Module], name: str) -> str:
    """A module that instantiates all, so that one run synthesises them, each on its own."""
    ports, body = ["input logic clk_i"], []
    for m in modules:
        wires = [p for p in m.ports if p.name != "clk_i"]
        ports += [f"{p.direction} logic {span(p.bits)}{m.name}_{p.name}" for p in wires]
        pins = ", ".join([".clk_i(clk_i)", *(f".{p.name}({m.name}_{p.name})" for p in wires)])
        body.append(f"  {m.name} u_{m.name} ({pins});")
    return f"\nmodule {name} (\n  " + ",\n  ".join(ports) + "\n);\n" + "\n".join(body) + "\nendmodule\n"
