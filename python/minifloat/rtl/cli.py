"""`minifloat rtl ...` and `minifloat crosscheck`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Emit hardware for a format or a layer, and measure what it costs.", no_args_is_help=True)

Weight = Annotated[str, typer.Argument(help="Weight format, as in e2m1 or int4.")]
Activation = Annotated[str, typer.Argument(help="Activation format.")]
Out = Annotated[Path, typer.Option(help="Folder to write.", file_okay=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it exists.")]
Area = Annotated[bool, typer.Option("--area", help="Run yosys and put the area into report.json.")]
Circuit = Annotated[str | None, typer.Option(help="Product circuit; the cheapest one measured if not given.")]
K = Annotated[int, typer.Option(help="The most products in one sum.", min=1)]
Depth = Annotated[int, typer.Option(help="Pipeline depth.", min=1, max=4)]
LayerName = Annotated[str, typer.Option("--layer", help="Which linear layer of the model.")]
Model = Annotated[Path | None, typer.Option(help="A safetensors file; the demo's sentence encoder if not given.")]
Inputs = Annotated[Path | None, typer.Option(help="With --model: .npy of activations, (rows, K).")]
DEFAULT_LAYER = "encoder.layer.0.attention.self.query"


@app.command()
def mac(
    weight: Weight,
    activation: Activation,
    out: Out = Path("mac"),
    k: K = 1024,
    depth: Depth = 1,
    circuit: Circuit = None,
    zero_specials: Annotated[bool, typer.Option("--zero-specials", help="Read NaN and infinity as zero.")] = False,
    overwrite: Overwrite = False,
    area: Area = False,
) -> None:
    """Emit a multiply-accumulator."""
    with _errors():
        from .mac import mac as make

        _emit(make(weight, activation, k, depth, variant=circuit, zero_specials=zero_specials), out, overwrite, area)


@app.command()
def dot(
    weight: Weight,
    activation: Activation,
    out: Out = Path("dot"),
    lanes: Annotated[int, typer.Option(help="Products a clock.", min=1)] = 16,
    k: K = 1024,
    depth: Depth = 3,
    circuit: Circuit = None,
    overwrite: Overwrite = False,
    area: Area = False,
) -> None:
    """Emit a dot product of several lanes."""
    with _errors():
        from ..formats import Format
        from .dot import Dot
        from .mac import Pair

        pair = Pair(Format.parse(weight), Format.parse(activation), circuit)
        _emit(Dot(pair, lanes, k, depth), out, overwrite, area)


@app.command()
def gemm(
    weight: Weight,
    activation: Activation,
    out: Out = Path("gemm"),
    rows: Annotated[int, typer.Option(help="Rows of the array: activation vectors.", min=1)] = 4,
    cols: Annotated[int, typer.Option(help="Columns of the array: outputs.", min=1)] = 4,
    k: K = 1024,
    depth: Annotated[int, typer.Option(help="Pipeline depth of an element.", min=1, max=3)] = 1,
    circuit: Circuit = None,
    overwrite: Overwrite = False,
    area: Area = False,
) -> None:
    """Emit an output-stationary systolic array."""
    with _errors():
        from ..formats import Format
        from .gemm import Gemm
        from .mac import Pair

        pair = Pair(Format.parse(weight), Format.parse(activation), circuit)
        _emit(Gemm(pair, rows, cols, k, depth), out, overwrite, area)


@app.command()
def constant(
    weights: Annotated[Path, typer.Argument(help="A safetensors file.", exists=True)],
    name: Annotated[str, typer.Option("--layer", help="Which linear layer of the file.")],
    out: Out = Path("constant"),
    weight: Annotated[str, typer.Option(help="Weight spec, one scale per row or tensor.")] = "int4-row",
    activation: Annotated[str, typer.Option(help="Activation format.")] = "int8",
    levels: Annotated[int, typer.Option(help="Adders in a row between two registers.", min=1)] = 2,
    overwrite: Overwrite = False,
    area: Area = False,
) -> None:
    """Emit a small layer with its weights hard-wired: one vector a clock."""
    with _errors():
        from .. import emulator
        from .constant import ConstantLayer
        from .sample import from_files

        q = emulator.quantize(from_files(str(weights), name, None, 1).weight, weight)
        _emit(ConstantLayer.from_quantized(q, activation, levels=levels), out, overwrite, area)


@app.command()
def layer(
    out: Out = Path("layer"),
    name: LayerName = DEFAULT_LAYER,
    model: Model = None,
    inputs: Inputs = None,
    weight: Annotated[str, typer.Option(help="Weight spec, one scale per row or tensor.")] = "e2m1-row",
    activation: Annotated[str, typer.Option(help="Activation format.")] = "int8",
    lanes: Annotated[int, typer.Option(help="Products a clock; must divide K.", min=1)] = 16,
    depth: Depth = 3,
    requantize: Annotated[
        str | None,
        typer.Option(help="Output format; its scale and the bias are set from sample inputs. Else raw sums."),
    ] = None,
    overwrite: Overwrite = False,
    area: Area = False,
) -> None:
    """Emit a whole linear layer with its real weights."""
    with _errors():
        from .calibrate import layer_of

        _emit(
            layer_of(_sample(model, name, inputs, 64), weight, activation, lanes, depth, requantize),
            out,
            overwrite,
            area,
        )


@app.command()
def cost(
    weight: Annotated[str | None, typer.Argument(help="Weight format; all measured pairs if not given.")] = None,
    activation: Annotated[str | None, typer.Argument(help="Activation format; the weight's if not given.")] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run yosys again for these formats.")] = False,
    every: Annotated[
        bool, typer.Option("--all", help="With --measure and no formats: every pair of 3 to 8 bits.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="Write a plot of LUTs against bits.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print the area of multiply-accumulators: yosys estimates, shipped with the package or measured now."""
    with _errors():
        from .cost import mixed_pairs, same_format_pairs, update
        from .cost_table import as_table, chosen
        from .costs import load

        wanted = [(weight, activation or weight)] if weight else same_format_pairs() + mixed_pairs(every)
        if measure:
            update(wanted, typer.echo)
        entries = chosen(load(), wanted if weight else None)
        if plot:
            from .cost_plot import plot_costs

            plot_costs(load()["mac"], plot)
        if as_json:
            import json

            typer.echo(json.dumps(load() | {"mac": entries}, indent=1))
        else:
            from rich.console import Console

            Console().print(as_table(entries))
            typer.echo(f"{load().get('tool')}, {load().get('flow')}: estimates of an open tool, not of a vendor's.")


def crosscheck(
    model: Model = None,
    name: LayerName = DEFAULT_LAYER,
    inputs: Inputs = None,
    weight: Annotated[str, typer.Option(help="Weight spec, one scale per row or tensor.")] = "e2m1-row",
    activation: Annotated[str, typer.Option(help="Activation spec, one scale per row or tensor.")] = "int8-row",
    rows: Annotated[int, typer.Option(help="Activation vectors.", min=1)] = 288,
    lanes: Annotated[int, typer.Option(help="Products a clock in the hardware; must divide K.", min=1)] = 16,
    depth: Depth = 3,
    captured: Annotated[
        Path | None, typer.Option(help="Check this capture from a board: .npz, or hex with --folder.")
    ] = None,
    folder: Annotated[Path | None, typer.Option(help="The emitted folder whose vectors a hex capture answers.")] = None,
) -> None:
    """Compare emulator, CPU kernel and simulated hardware on a real layer; fails at the first difference."""
    with _errors():
        from .crosscheck import compare, read_captured, read_captured_hex
        from .crosscheck import crosscheck as run

        if captured:
            want, got = read_captured_hex(captured, folder) if folder else read_captured(captured)
            found = [compare("capture", want, got)]
        else:
            found = run(_sample(model, name, inputs, rows), weight, activation, lanes, depth)
    for comparison in found:
        typer.echo(str(comparison))
    if any(c.differences for c in found):
        raise typer.Exit(1)


def _sample(model: Path | None, layer: str, inputs: Path | None, rows: int):
    from .sample import from_files, minilm

    return from_files(str(model), layer, inputs and str(inputs), rows) if model else minilm(layer, rows)


def _emit(design, out: Path, overwrite: bool, area: bool) -> None:
    from .emit import describe, emit

    place = emit(design, out, overwrite, area)
    facts = ", ".join(f"{key} {value}" for key, value in describe(design).items() if not isinstance(value, dict))
    typer.echo(f"{place}: {facts}")
    typer.echo(f"next: make -C {place} lint sim synth")


class _errors:
    """Turns what a user can put right into one line and exit code 2."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind, error, trace) -> None:
        from .tools import MissingTool

        if isinstance(error, (ValueError, FileExistsError, FileNotFoundError, ModuleNotFoundError, MissingTool)):
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
