"""Formal equivalence of two modules with the same ports, by yosys: for all inputs, for ever, not for a sample."""

from __future__ import annotations

import tempfile
from pathlib import Path

from . import tools
from .module import Module

PROVED = "Induction step proven: SUCCESS!"


def prove_equal(gold: Module, gate: Module, sources: list[str] | None = None) -> None:
    """Prove by temporal induction that the outputs of gold and gate never differ when both start from zeroed registers.

    Raises:
        tools.MissingTool: yosys is missing.
        AssertionError: they differ, or no proof was found; the message holds what yosys said.
    """
    if gold.name == gate.name:
        raise ValueError(f"both modules are called {gold.name}: give them different names")
    text = "\n".join([*(sources or []), gold.render(), gate.render()])
    script = "; ".join(
        [
            "read_verilog -sv pair.sv",
            f"hierarchy -check; proc; flatten {gold.name}; flatten {gate.name}; memory_map; opt -full",
            f"miter -equiv -flatten -make_outputs {gold.name} {gate.name} miter",
            "hierarchy -top miter; opt -full miter",
            "tee -q -o proof.txt sat -verify -tempinduct -set-init-zero -prove trigger 0 miter",
        ]
    )
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        (place / "pair.sv").write_text(text)
        failure = ""
        try:
            tools.run([*tools.yosys(), "-q", "-p", script], place)
        except RuntimeError as error:
            failure = str(error)
        proof = place / "proof.txt"
        said = proof.read_text() if proof.exists() else failure
    if failure or PROVED not in said:
        tail = "\n".join(said.splitlines()[-25:])
        raise AssertionError(f"{gold.name} and {gate.name} are not proven equal:\n{tail}")
