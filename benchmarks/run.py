"""Runs cells and keeps what they gave. From the shell: python -m benchmarks.run --shapes 4096,4096 --batches 1 ..."""

from __future__ import annotations

import argparse
import gc
import sys
import warnings
from pathlib import Path

from . import environment, results_file
from .cases import Options, add_options, read_options

if __name__ == "__main__":  # before anything imports torch
    environment.prepare(environment.argument("--peer-isa", "native"))

import torch

from . import contenders as teams
from .ceilings import better, measure_ceilings
from .contenders.base import copy_count
from .report import cell_lines, write_report
from .results_file import OURS, set_limits
from .timing import measure, statistics, touch

# Above this relative error a peer computed something else: ternary weights reach 0.95. Ours are tested in tests/, and
# binary weights with one scale a row, the largest value, are off by 3.
LARGEST_ERROR = 1.3


class Run:
    """One run: its options, its machine, and the cells measured so far."""

    def __init__(self, options: Options, names: set[str] | None = None, log=print):
        """names: only these contenders (and torch float32) take part; None: all that the options choose."""
        self.options, self.names, self.log = options, names, log
        teams.ours.select_isa(options.isa)
        self.machine = environment.describe(options)
        self.ceilings = {str(t): measure_ceilings(t) for t in options.chosen_threads}
        self.skipped: dict[str, str] = {}
        self.cells: list[dict] = []
        self.team: list[teams.Contender] = []
        self.built_for = None
        self.samples: dict[tuple, dict[str, list[float]]] = {}  # us, by (shape, M, threads) and name

    def cell(self, shape: tuple[int, int], m: int, threads: int) -> dict:
        """Measure one cell. Contenders are kept for the next cell if it has the same (N, K) and threads."""
        fresh = self.built_for != (shape, threads)
        if fresh:
            self.release()
            teams.ours.set_threads(threads)
            self.w = torch.randn(shape, generator=torch.Generator().manual_seed(0))
            self.team = self._build(self.w, threads)
            self.built_for = (shape, threads)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # peers deprecate what we time
            self.cells.append(self._cell(self.team, self.w, m, threads, fresh))
        # DRAM is shared with other machines' tenants: what one moment allows is no ceiling for the next.
        self.ceilings[str(threads)] = better(self.ceilings[str(threads)], measure_ceilings(threads, "dram"))
        set_limits(self.cells[-1], self.ceilings[str(threads)], self.machine)
        return self.cells[-1]

    def release(self) -> None:
        """Give back the memory of all contenders."""
        for contender in self.team:
            contender.release()
        self.team, self.built_for = [], None
        gc.collect()

    def _build(self, w: torch.Tensor, threads: int) -> list[teams.Contender]:
        built = []
        for contender in teams.everyone(self.options):
            if self.names is not None and contender.name not in self.names | {teams.BASELINE}:
                continue
            try:
                with torch.inference_mode(), warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    contender.build(w, self.options.copies_mb * 10**6, threads)
                built.append(contender)
            except (teams.Skipped, ValueError) as reason:
                self._skip(contender.name, str(reason), f" at {w.shape[0]}x{w.shape[1]}")
        return built

    def _skip(self, name: str, why: str, where: str) -> None:
        if name not in self.skipped:
            self.log(f"skipped: {name}{where}: {why}")
            self.skipped[name] = f"{why}{where}"

    def _cell(self, team: list[teams.Contender], w: torch.Tensor, m: int, threads: int, fresh: bool) -> dict:
        x = torch.randn(m, w.shape[1], generator=torch.Generator().manual_seed(m))
        reference = x @ w.T
        works, errors = {}, {}
        with torch.inference_mode():
            for contender in team:
                try:
                    output = contender.output(x)
                    errors[contender.name] = 0.0 if output is None else relative_error(output, reference)
                    works[contender.name] = contender.work(x)
                except (teams.Skipped, RuntimeError) as reason:
                    self._skip(contender.name, str(reason).splitlines()[0], f" at M={m}")
            for name in [n for n in works if not n.startswith(OURS) and not errors[n] < LARGEST_ERROR]:
                self._skip(name, f"wrong result, relative error {errors[name]:.2f}", f" at M={m}")
                del works[name]
            options = self.options
            for contender in team if fresh else []:
                if contender.name in works:
                    touch(works[contender.name], copy_count(options.copies_mb * 10**6, contender.weight_bytes))
            samples = measure(works, options.seconds, options.min_rounds, options.max_rounds)
        self.samples[tuple(w.shape), m, threads] = samples
        cell = {"n": w.shape[0], "k": w.shape[1], "m": m, "threads": threads, "contenders": {}}
        for contender in team:
            if contender.name not in works:
                continue
            cell["contenders"][contender.name] = {
                "library": contender.library,
                "width": contender.width,
                "bits": round(8 * contender.weight_bytes / w.numel(), 4),
                "arithmetic": contender.arithmetic,
                "error": float(f"{errors[contender.name]:.2g}"),
                **statistics(samples[contender.name]),
            }
        return cell

    def finish(self) -> None:
        """Set all limits by the best ceilings of the whole run."""
        for threads, before in self.ceilings.items():
            self.ceilings[threads] = better(before, measure_ceilings(int(threads)))
        for cell in self.cells:
            set_limits(cell, self.ceilings[str(cell["threads"])], self.machine)

    def results(self) -> dict:
        """What goes into the JSON file."""
        return {"machine": self.machine, "ceilings": self.ceilings, "skipped": self.skipped, "cells": self.cells}

    def path(self, out: str) -> Path:
        """Where the results go: `out` itself if it is a .json file, a name by CPU and date in that folder otherwise."""
        path = Path(out) if out else environment.RESULTS
        if path.suffix == ".json":
            return path
        cpu = "".join(c if c.isalnum() else "-" for c in self.machine["cpu"].lower()).strip("-")
        chosen = [f"ours-{self.options.isa}"] if self.options.isa else []
        chosen += [f"peers-{self.options.peer_isa}"] if self.options.peer_isa != "native" else []
        return path / ("-".join([cpu, *chosen, self.machine["date"][:10]]) + ".json")

    def write(self, out: str) -> Path:
        """Write the JSON: after every cell, because a peer may abort the process."""
        path = self.path(out)
        results_file.write(self.results(), path)
        return path

    def save(self, out: str) -> Path:
        """Write the final JSON, the tables and the plots; returns the JSON's path."""
        self.finish()
        path = self.write(out)
        write_report(path)
        return path


def relative_error(y: torch.Tensor, reference: torch.Tensor) -> float:
    return ((y.double() - reference).norm() / reference.norm()).item()


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description=__doc__)
    add_options(parser.add_argument)
    parsed = parser.parse_args(argv)
    options = read_options(parsed)
    run = Run(options)
    for threads in options.chosen_threads:
        for shape, batches in options.cells:
            for m in batches:
                print("\n".join(cell_lines(run.cell(shape, m, threads))), flush=True)
                if parsed.out:
                    run.write(parsed.out)
    if parsed.out:
        print(run.save(parsed.out))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
