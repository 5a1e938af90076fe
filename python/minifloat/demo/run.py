"""The demo from start to end: measure every setting, print one table, write demo.json, demo.html and demo.png."""

import time
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from torch import nn

from . import machine, plot, report
from .measure import Reference, Result, measure, measure_float32
from .model import load_model, make_batches
from .packages import require
from .settings import Setting
from .texts import paragraphs

TABLE_WIDTH = 130


def run(
    out: Path, settings: list[Setting], paragraph_count: int, threads: int | None, console: Console
) -> list[Result]:
    """Run the demo and return its results.

    Args:
        out: the folder for demo.json, demo.html and demo.png; made if it is not there.
        paragraph_count: how many paragraphs to embed.
        threads: torch's threads; None leaves them as they are.
    """
    start = time.perf_counter()
    if threads is not None:
        torch.set_num_threads(threads)
    require()
    out.mkdir(parents=True, exist_ok=True)
    batches = make_batches(paragraphs(paragraph_count))
    model = load_model()
    with _progress(console) as progress:
        task = progress.add_task("float32", total=len(batches) * (1 + len(settings)))
        ref = measure_float32(model, batches, lambda: progress.advance(task))
        results = []
        for setting in settings:
            progress.update(task, description=setting.name)
            results.append(measure(setting, ref, lambda: progress.advance(task)))
    _publish(out, results, ref, console)
    console.print(f"{time.perf_counter() - start:.0f} s; wrote demo.json, demo.html and demo.png to {out.resolve()}")
    return results


def _publish(out: Path, results: list[Result], ref: Reference, console: Console) -> None:
    """Print the table and write the three files."""
    where = machine.describe() | {"paragraphs": len(ref.embeddings)}
    about = _about(where, ref)
    # At its own width: a narrower terminal wraps its lines, a pipe has no width at all, and no figure is cut short.
    console.width = max(console.width, TABLE_WIDTH)
    console.print(report.table(results, ref.file_bytes, about))
    report.write_json(out / "demo.json", results, ref.file_bytes, where)
    figure = plot.figure(results, ref.file_bytes)
    plot.write_png(figure, out / "demo.png")
    report.write_html(out / "demo.html", results, ref.file_bytes, about, plot.svg(figure, results))


def _about(where: dict, ref: Reference) -> str:
    """Return what the table's reader has to know, in three lines."""
    layers = [module for module in ref.model.modules() if isinstance(module, nn.Linear)]
    other_mb = (ref.file_bytes - sum(4 * layer.weight.numel() for layer in layers)) / 1e6
    threads = f"{where['threads']} thread{'s' * (where['threads'] > 1)}"
    return (
        f"{where['paragraphs']} paragraphs of pydoc_data.topics in batches of up to 32, cut at 128 "
        f"tokens.\n{where['cpu']}, {where['isa']}, {threads}, torch {where['torch']}.\n"
        f"All {len(layers)} Linear layers are quantized. Embeddings, norms and biases stay float32: {other_mb:.1f} MB "
        "of each file.\n"
        "ms/batch: medians over every second batch, which runs through both models in turn.\n"
        "exact: outputs of three layers, bit-equal to the emulator. float: their largest error, of what is allowed."
    )


def _progress(console: Console) -> Progress:
    """Return a bar that stays silent when nobody watches."""
    columns = [TextColumn("{task.description:<24}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()]
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
