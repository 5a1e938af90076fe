"""The commands `minifloat explore` and `minifloat report`. What they need is imported when they run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Every width from 3 to 8 bits: the integer, and the floats with 1 to 4 exponent bits that compete with it.
DEFAULT_WEIGHTS = (
    "int3-row,e1m1-row,e2m0-row,int4-row,e2m1-row,e3m0-row,int5-row,e2m2-row,e3m1-row,int6-row,e2m3-row,e3m2-row,"
    "int7-row,e2m4-row,e3m3-row,int8-row,e2m5-row,e3m4-row,e4m3fn-row"
)


def explore(
    task: Annotated[
        str, typer.Argument(help="mobilenet, digits-cnn, numbers-vit, smollm, g2p, minilm, or FILE.py:FUNCTION.")
    ],
    out: Annotated[
        Path, typer.Option(help="Results, as JSON lines; what it holds already is not measured again.")
    ] = Path("explore.jsonl"),
    weights: Annotated[str, typer.Option(help="Weight specs, separated by commas.")] = DEFAULT_WEIGHTS,
    activations: Annotated[
        str, typer.Option(help="Activation specs; 'same' is the weight's element format, 'none' float32.")
    ] = "same",
    method: Annotated[
        list[str] | None, typer.Option(help="A recipe such as 'gptq + bias_correction'; may be given several times.")
    ] = None,
    ends: Annotated[str | None, typer.Option(help="Another spec for the first and last layer, as in int8-row.")] = None,
    samples: Annotated[
        int | None, typer.Option(help="How much data to evaluate on; the task's choice if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(help="For methods that draw random numbers.")] = 0,
    address: Annotated[str | None, typer.Option(help="A dask scheduler, tcp://HOST:PORT; else this machine.")] = None,
    workers: Annotated[int, typer.Option(help="Worker processes on this machine; times need 1.", min=1)] = 1,
) -> None:
    """Measure accuracy and cost of every weight format x activation format x method on a task."""
    _require("explore", "distributed")
    from .cells import grid
    from .measure import task_of
    from .store import Store, StoreError
    from .sweep import sweep
    from .tasks import TaskError

    try:
        formats = [None if name == "none" else name for name in _names(activations)]
        cells = grid(task, _names(weights), formats, method or ["nearest"], ends, samples, seed)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    try:
        with Store(out) as store:
            new = [cell for cell in cells if cell not in store.results]
            typer.echo(f"{len(cells)} cells, {len(cells) - len(new)} of them in {out} already")
            if new and address is None and workers == 1:
                task_of(new[0])  # fails here rather than once a cell
            progress = _Progress(len(new))
            failed = sweep(cells, store, address, workers, progress.show)
    except (TaskError, StoreError) as error:
        _fail(str(error))
    for cell, error in failed.items():
        typer.secho(f"failed: {cell}: {error}", fg="red", err=True)
    if failed:
        _fail(f"{len(failed)} of {len(cells)} cells failed; the same command tries them again")


def report(
    results: Annotated[list[Path], typer.Argument(help="Files written by `minifloat explore`.")],
    out: Annotated[Path, typer.Option(help="The page.", dir_okay=False)] = Path("report.html"),
    png: Annotated[Path | None, typer.Option(help="Also a picture: the metric against LUTs.", dir_okay=False)] = None,
    methods: Annotated[str | None, typer.Option(help="In the picture, only these methods, separated by ';'.")] = None,
    metric: Annotated[str | None, typer.Option(help="In the picture, this metric, as in kl.")] = None,
) -> None:
    """Draw the results of sweeps as one HTML page that needs nothing else."""
    _require("report", "plotly")
    from .report.page import page
    from .report.rows import rows
    from .store import StoreError, read

    try:
        found = rows([read(path) for path in results])
    except StoreError as error:
        _fail(str(error))
    if not found:
        _fail(f"no results in {', '.join(map(str, results))}")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(found), encoding="utf-8")
    typer.echo(f"{len(found)} results in {out.resolve()}")
    if png is not None:
        _require("report --png", "matplotlib")
        from .report.figure import write_png

        wanted = None if methods is None else {"", *(name.strip() for name in methods.split(";"))}
        try:
            write_png(png, [row for row in found if wanted is None or row["method"] in wanted], metric)
        except ValueError as error:
            _fail(str(error))


class _Progress:
    """One line a result."""

    def __init__(self, total: int):
        self.total, self.done = total, 0

    def show(self, cell, result: dict) -> None:
        self.done += 1
        value = result["metrics"][result["metric"]]
        value = "not finite" if value is None else f"{value:.5g}"
        luts = "" if result["luts_per_mac"] is None else f", {result['luts_per_mac']:.1f} LUTs"
        seconds = result["quantize_time_s"] + result["evaluate_time_s"]
        typer.echo(f"[{self.done}/{self.total}] {cell}: {result['metric']} {value}{luts}, {seconds:.0f} s")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _require(command: str, package: str) -> None:
    import importlib.util

    if importlib.util.find_spec(package) is None:
        _fail(f"`minifloat {command}` needs {package}, which is not installed; run: pip install 'minifloat[explore]'")


def _fail(message: str) -> None:
    typer.secho(f"Error: {message}", fg="red", err=True)
    raise typer.Exit(1)
