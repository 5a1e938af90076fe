"""LUTs of a multiply-accumulator against the bits of its formats: integers and every EeMm."""

from __future__ import annotations

from pathlib import Path

from ..formats import Format


def plot_costs(table: dict[str, dict], path: Path) -> None:
    """Write a PNG or SVG of the entries whose two formats are the same.

    Raises:
        ModuleNotFoundError: matplotlib is missing.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(9, 5.5))
    groups: dict[str, list[tuple[int, int, str]]] = {}
    for key, entry in table.items():
        w, a = key.split()
        if w != a:
            continue
        f = Format.parse(w)
        group = "int" if f.kind == "int" else f"E = {f.exponent_bits}"
        groups.setdefault(group, []).append((f.bits, entry["lut"], w))
    for group in sorted(groups, key=lambda g: (g != "int", g)):
        points = sorted(groups[group])
        style = {"color": "black", "linewidth": 2} if group == "int" else {"linewidth": 1}
        axes.plot([p[0] for p in points], [p[1] for p in points], marker="o", label=group, **style)
    axes.set_yscale("log")
    axes.set_yticks([16, 32, 64, 128, 256, 512], ["16", "32", "64", "128", "256", "512"])
    axes.minorticks_off()
    axes.set_xlabel("bits of each operand")
    axes.set_ylabel("LUTs (yosys estimate, AMD UltraScale+, no DSP)")
    axes.set_title("Multiply-accumulate with an exact accumulator, K = 1024")
    axes.grid(alpha=0.3)
    axes.legend(title="format x itself")
    figure.tight_layout()
    figure.savefig(path, dpi=110, metadata={"Software": None})
    pyplot.close(figure)
