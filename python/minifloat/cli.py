"""The `minifloat` command. Each command imports what it needs when it runs, so that `--help` is quick."""

from pathlib import Path
from typing import Annotated

import typer

from .explore.cli import explore, report
from .rtl.cli import app as rtl_app
from .rtl.cli import crosscheck

app = typer.Typer(
    help="Linear algebra in 1 to 8 bits, the same bits on every backend.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,
)

app.add_typer(rtl_app, name="rtl")
app.command()(crosscheck)
app.command()(explore)
app.command()(report)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where to write demo.json, .html and .png.", file_okay=False)] = Path("."),
    paragraphs: Annotated[int, typer.Option(help="How many paragraphs to embed.", min=2)] = 256,
    settings: Annotated[
        str | None, typer.Option(help="Only settings whose name contains one of these, as in 'mxfp4,int8-row x'.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Threads; torch's own choice if not given.", min=1)] = None,
) -> None:
    """Quantize a real sentence encoder in many formats and print fidelity, size, speed and exactness."""
    from rich.console import Console

    from .demo.settings import choose

    console = Console()
    try:
        chosen = choose(settings)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--settings") from None
    from .demo.packages import MissingPackageError
    from .demo.run import run

    try:
        results = run(out, chosen, paragraphs, threads, console)
    except MissingPackageError as error:
        _fail(str(error))
    unequal = [r.setting.name for r in results if not r.check.passed]
    if unequal:
        _fail(f"these differ from the emulator: {', '.join(unequal)}")


@app.command()
def formats(
    name: Annotated[
        str | None, typer.Argument(help="A format (e3m2, int4, nf4) or spec (mxfp4, int4-g32): prints its values.")
    ] = None,
) -> None:
    """List the named formats and presets, or print the value of every code of one format."""
    from rich.console import Console

    console = Console()
    if name is None:
        console.print(_format_table(), _preset_table())
        return
    try:
        console.print(*_describe(name, console.width), sep="\n", highlight=False)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="NAME") from None


def _format_table():
    """Every format with a name of its own; any other e{E}m{M} is spelled the same way."""
    from rich import box
    from rich.table import Table

    from .formats import Format, format_names

    table = Table(
        title="Formats", box=box.SIMPLE, caption="and every e{E}m{M} of 2 to 8 bits, ue{E}m{M} without a sign"
    )
    table.add_column("name", overflow="fold")  # the one column that gives way, if a codebook of yours has a long name
    for heading in ("bits", "smallest", "max", "min"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("special codes", no_wrap=True)
    for name in format_names():
        f = Format.parse(name)
        smallest = f"{f.smallest:g}" if f.max > 0 else "none"
        table.add_row(name, str(f.bits), smallest, f"{f.max:g}", f"{f.min:g}", _specials(f))
    return table


def _preset_table():
    """Every preset, written out."""
    from rich import box
    from rich.table import Table

    from .formats import PRESETS, QuantSpec

    table = Table("name", "written out", "elements", "scales", title="Presets", box=box.SIMPLE)
    table.add_column("bits/value", justify="right")
    for preset in PRESETS:
        spec = QuantSpec.parse(preset)
        scales = f"{spec.scale_format} per {spec.group_size or spec.granularity}"
        table.add_row(preset, PRESETS[preset], str(spec.format), scales, _bits_per_value(spec))
    return table


def _bits_per_value(spec) -> str:
    if spec.group_size is None:
        return f"{spec.format.bits} + scales"
    return f"{spec.format.bits + spec.scale_bits / spec.group_size:g}"


def _describe(name: str, width: int) -> list:
    """What to print for one format or spec: its properties and a table from code to value."""
    from .formats import Format, QuantSpec

    lines = []
    try:
        f = Format.parse(name)
    except ValueError:
        if "-" not in name and not name.startswith(("mx", "nv")):
            raise
        spec = QuantSpec.parse(name)
        written_out = f" = {spec}" if name != str(spec) else ""
        lines.append(f"{name}{written_out}: one {spec.scale_format} scale per {spec.group_size or spec.granularity}")
        f = spec.format
    layout = f" ({int(f.signed)} sign, {f.exponent_bits} exponent, {f.mantissa_bits} mantissa; bias {f.bias})"
    lines.append(f"{f}: {f.bits} bit{'s' * (f.bits > 1)}{layout if f.kind == 'float' else ''}")
    smallest = _number(f.smallest) if f.max > 0 else "none"
    lines.append(f"max {_number(f.max)}, min {_number(f.min)}, smallest positive {smallest}, unit 2**{f.unit}")
    lines.append(f"special codes: {_specials(f) or 'none'}")
    return [*lines, _value_table(f, width)]


def _value_table(f, width: int):
    """The value of every code, as many in a row as fit the terminal."""
    from rich import box
    from rich.table import Table

    texts = [_number(f.values[code]) if _is_assigned(f, code) else "-" for code in range(2**f.bits)]
    # A row holds one binade where that is at most 8 codes, so that the steps between values are seen to double.
    columns = 2**f.mantissa_bits if f.mantissa_bits in (1, 2, 3) else min(8, len(texts))
    while columns > 1 and 8 + columns * (max(2, *map(len, texts)) + 3) > width:
        columns //= 2
    table = Table("code", box=box.SIMPLE)
    for column in range(columns):
        table.add_column(f"+{column}", justify="right", no_wrap=True)
    for start in range(0, len(texts), columns):
        table.add_row(f"0x{start:02x}", *texts[start : start + columns])
    return table


def _is_assigned(f, code: int) -> bool:
    return f.table is None or code < len(f.table)


def _specials(f) -> str:
    """How many codes are NaN, infinite or minus zero, for the formats that have such."""
    import numpy as np

    values = [f.values[code] for code in range(2**f.bits) if _is_assigned(f, code)]
    counts = {
        "NaN": int(np.isnan(values).sum()),
        "inf": int(np.isinf(values).sum()),
        "-0": int(f.negative_zero_code is not None),
    }
    return ", ".join(name if count == 1 else f"{count} {name}" for name, count in counts.items() if count)


def _number(value: float) -> str:
    """The shortest text that float32 reads back as the same value."""
    import numpy as np

    return str(np.float32(value)).removesuffix(".0")


def _fail(message: str) -> None:
    typer.secho(f"Error: {message}", fg="red", err=True)
    raise typer.Exit(1)
