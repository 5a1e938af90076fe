"""One picture per batch size: what each of our formats reaches, the best peer of its width, and the limit."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from .report import rows

OURS = "#2a78d6"
MARKS = (("same_width", "#d9822b", "best peer of that width"), ("limit", "#555555", "limit of the machine"))


def write_plots(results: dict, path: Path, statistic: str = "best_us") -> list[Path]:
    """`<result file>-M<m>.png` for every batch size."""
    written = []
    for m in sorted({cell["m"] for cell in results["cells"]}):
        target = path.with_name(f"{path.stem}-M{m}.png")
        draw([cell for cell in results["cells"] if cell["m"] == m], target, results["machine"], statistic)
        written.append(target)
    return written


def draw(cells: list[dict], target: Path, machine: dict, statistic: str) -> None:
    """A panel for each (N, K) and thread count."""
    tables = [rows(cell, statistic) for cell in cells]
    tallest = max(len(table) for table in tables)
    columns = min(len(cells), 3)
    lines = -(-len(cells) // columns)
    figure, axes = plt.subplots(
        lines, columns, figsize=(5.2 * columns, lines * (1.6 + 0.34 * tallest)), squeeze=False, layout="constrained"
    )
    for axis, cell, table in zip(axes.flat, cells, tables, strict=False):
        panel(axis, cell, table)
    for axis in list(axes.flat)[len(cells) :]:
        axis.set_axis_off()
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"M = {cells[0]['m']}: speed as a multiple of torch float32\n{machine['cpu']}, {machine['isa']}")
    figure.savefig(target, dpi=110)
    plt.close(figure)


def panel(axis, cell: dict, table: list[dict]) -> None:
    """Bars are ours; ticks mark the best peer of that width and the limit."""
    at = list(range(len(table)))[::-1]
    axis.barh(at, [row["ratio"] for row in table], color=OURS, height=0.62, label="ours")
    for key, color, label in MARKS:
        found = [(y, row[key]) for y, row in zip(at, table, strict=True) if row[key]]
        values = [(y, value[1] if isinstance(value, tuple) else value) for y, value in found]
        axis.vlines(
            [v for _, v in values],
            [y - 0.42 for y, _ in values],
            [y + 0.42 for y, _ in values],
            color=color,
            linewidth=2.6,
            label=label,
        )
    for y, row in zip(at, table, strict=True):
        axis.text(row["ratio"], y, f" {row['ratio']:.1f}", va="center", fontsize=8)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_yticks(at, [row["name"] for row in table], fontsize=8)
    axis.set_title(f"{cell['n']} x {cell['k']}, {cell['threads']} thread{'s' * (cell['threads'] > 1)}", fontsize=10)
    axis.set_xlim(left=0)
    axis.spines[["top", "right"]].set_visible(False)
