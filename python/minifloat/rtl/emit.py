"""Write a design into a folder of its own: sources, testbench, Makefile, constraints, report and README."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

from .assets import asset
from .constant import ConstantLayer
from .layer import SHELL, Layer
from .layer_simulation import memory_files
from .mac import Mac
from .pnr import between_registers
from .readme import readme
from .synth import area
from .vectors import testbench

PERIOD_NS = 4.0  # the clock constraint that is written for Vivado


def emit(design, out_dir: str | Path, overwrite: bool = False, with_area: bool = False) -> Path:
    """Write the folder and return its path.

    Args:
        design: a Mac, Dot, Gemm, Layer or ConstantLayer.
        overwrite: replace an existing folder.
        with_area: run yosys and put the area into report.json.
    Raises:
        FileExistsError: the folder exists, is not empty, and overwrite is not set.
    """
    place = Path(out_dir)
    if place.exists() and any(place.iterdir()):
        if not overwrite:
            raise FileExistsError(
                f"{place} exists and is not empty: choose another folder, or overwrite it with --overwrite"
            )
        if not (place / "report.json").exists():
            raise FileExistsError(
                f"{place} was not written by this command: remove it yourself, or choose another folder"
            )
        shutil.rmtree(place)
    top = design.module()  # before anything is written: a design that cannot be built raises here
    bench = testbench(design)
    files = {f"rtl/{m.name}.sv": m.render() for m in [*parts(design), top]}
    files |= {f"rtl/{name}": text for name, text in (memory_files(design) if isinstance(design, Layer) else {}).items()}
    if isinstance(design, Layer):
        files[f"rtl/{SHELL}"] = design.shell()
    files |= {f"tb/{name}": text for name, text in bench.files.items()}
    files |= {"tb/tb.sv": bench.top, f"tb/{bench.skeleton}": asset(bench.skeleton).read_text()}
    files["pnr/pnr_top.sv"] = between_registers(top).render()
    files["Makefile"] = asset("Makefile.design").read_text().replace("@TOP@", top.name)
    files["vivado/clock.xdc"] = (
        f"# Not tested with a vendor tool.\ncreate_clock -period {PERIOD_NS} [get_ports clk_i]\n"
    )
    files["vivado/synth.tcl"] = _vivado(top.name)
    report = describe(design)
    if with_area:
        whole = design_area(design)
        report["area"] = whole.as_dict()
        if isinstance(design, Layer) and design.requantize:
            bare = design_area(replace(design, requantize=None))
            report["area_of_requantizer"] = {name: n - getattr(bare, name) for name, n in whole.as_dict().items()}
    files["report.json"] = json.dumps(report, indent=2) + "\n"
    files["README.md"] = readme(design, report, sorted(files))
    for name, text in files.items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text)
    return place


def parts(design) -> list:
    """The modules below the top."""
    return [] if isinstance(design, Mac) else design.parts()


def design_area(design):
    """The area of the whole design, everything below it included."""
    sources = [m.render() for m in parts(design)]
    files = {}
    if isinstance(design, Layer):
        sources.append(design.shell())
        files = {name: text.encode() for name, text in memory_files(design).items()}
    top = design.module()
    return area([top], sources, files)[top.name]


def describe(design) -> dict:
    """What report.json says of a design."""
    pair = design.pair
    out = {
        "design": type(design).__name__,
        "top": design.name,
        "weight": str(pair.weight),
        "activation": str(pair.activation),
    }
    out |= {"unit_exponent": pair.plan.unit, "k": design.k}
    if isinstance(design, ConstantLayer):
        counts = {"adders": design.program.adders, "shared": len(design.program.nodes)}
        return out | {"n": design.n, "out_bits": design.out_bits, "latency": design.latency, **counts}
    out["product_circuit"] = pair.circuit
    if isinstance(design, Layer):
        out |= {"n": design.n, "lanes": design.lanes, "clocks_a_vector": design.clocks_a_vector, "depth": design.depth}
        out |= {"sum_bits": design.sum_bits, "tdata_in_bits": design.in_width, "tdata_out_bits": design.out_width}
        out["weight_memory_bits"] = design.n * design.k * pair.w.bits
        if design.requantize:
            r = design.requantize
            out["output"] = {"format": str(r.format), "shift": r.shift, "multiplier_bits": r.multiplier_bits}
        return out
    out |= {"accumulator_bits": design.accumulator_bits, "latency": design.depth}
    sizes = {name: getattr(design, name) for name in ("lanes", "rows", "cols") if hasattr(design, name)}
    return out | sizes


def _vivado(top: str) -> str:
    return f"""# Out-of-context synthesis and implementation: vivado -mode batch -source vivado/synth.tcl
# Not tested with a vendor tool: the figures of this project come from yosys and nextpnr.
read_verilog -sv [glob rtl/*.sv]
add_files [glob -nocomplain rtl/*.hex]
read_xdc vivado/clock.xdc
synth_design -top {top} -part xczu7ev-ffvc1156-2-e -mode out_of_context
opt_design
place_design
route_design
report_utilization
report_timing_summary
"""
