"""The cost table for people: rich for the terminal, markdown for the documentation."""

from __future__ import annotations

from ..formats import Format

COLUMNS = ("weight", "activation", "accumulator bits", "LUT", "LC", "FF", "CARRY4", "MUXF", "circuit")


def chosen(data: dict, pairs: list[tuple[str, str]] | None) -> dict[str, dict]:
    """The entries of these pairs, or all, by the bits of the two formats.

    Raises:
        ValueError: a pair was not measured; the message says how to.
    """
    table = data["mac"]
    if pairs is not None:
        for w, a in pairs:
            Format.parse(w), Format.parse(a)
            if f"{w} {a}" not in table:
                raise ValueError(
                    f"{w} x {a} is not in the shipped table: measure it with `minifloat rtl cost {w} {a} --measure`"
                )
        return {f"{w} {a}": table[f"{w} {a}"] for w, a in pairs}
    return dict(
        sorted(table.items(), key=lambda item: [Format.parse(n).bits for n in item[0].split()] + item[0].split())
    )


def rows(entries: dict[str, dict]) -> list[list[str]]:
    names = ("accumulator_bits", "lut", "lc", "ff", "carry", "muxf", "variant")
    return [[*key.split(), *(str(e[name]) for name in names)] for key, e in entries.items()]


def as_table(entries: dict[str, dict]):
    """A rich table."""
    from rich.table import Table

    table = Table(title="Multiply-accumulate with an exact accumulator, K = 1024")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if 2 <= i <= 7 else "left")
    for row in rows(entries):
        table.add_row(*row)
    return table


def as_markdown(entries: dict[str, dict]) -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|---|" + "---:|" * 6 + "---|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows(entries))]) + "\n"


def documented(data: dict) -> dict[str, str]:
    """The tables of docs/hardware.md: same-format and chosen mixed pairs, dot products, clock frequencies."""
    mixed = ["e2m1 e4m3fn", "int4 e4m3fn", "e2m1 int8", "int4 int8", "e2m1 int4", "nf4 int8", "ternary int8"]
    same = [key for key in chosen(data, None) if key.split()[0] == key.split()[1]]
    entries = {key: data["mac"][key] for key in same + mixed if key in data["mac"]}
    dots = ["| format | LUT | LC | FF |", "|---|---:|---:|---:|"]
    for key, e in data.get("dot", {}).items():
        per_lane = " | ".join(f"{e[name] / e['lanes']:.1f}" for name in ("lut", "lc", "ff"))
        dots.append(f"| {key.split()[0]} | {per_lane} |")
    speeds = ["| weight | activation | depth 1 | depth 2 | depth 3 |", "|---|---|---:|---:|---:|"]
    for key, mhz in data.get("fmax", {}).items():
        speeds.append(f"| {' | '.join(key.split())} | {' | '.join(f'{mhz[d]:.0f} MHz' for d in '123')} |")
    return {"cost": as_markdown(entries), "dot": "\n".join(dots) + "\n", "fmax": "\n".join(speeds) + "\n"}
