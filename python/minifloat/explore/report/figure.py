"""The map as a picture: the metric against LUTs, one panel a task, int and float coloured apart."""

from __future__ import annotations

from pathlib import Path

COLORS = {"int": "#0b5cad", "float": "#c2410c", "codebook": "#15803d"}
MARKERS = "oDs^v<>pX"


LOWER = ("kl", "perplexity", "log_perplexity")  # of these, less is better; drawn on a logarithmic axis


def write_png(path: Path, rows: list[dict], metric: str | None = None) -> None:
    """One panel for each task that has a cell with a cost in LUTs; the line is each family's Pareto front.

    Args:
        metric: another one than the task's own.
    Raises:
        ValueError: there is nothing to draw.
    """
    from matplotlib.figure import Figure

    if metric is not None:
        rows = [with_metric(row, metric) for row in rows]
    drawn = [row for row in rows if row["luts"] is not None and row["value"] is not None]
    tasks = list(dict.fromkeys(row["task"] for row in drawn))
    if not tasks:
        raise ValueError(
            f"no result has a cost in LUTs and {metric or 'a metric'}: the cost table holds no such formats"
        )
    fig = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
    for ax, task in zip(fig.subplots(1, len(tasks), squeeze=False)[0], tasks, strict=True):
        _panel(ax, [row for row in rows if row["task"] == task])
    fig.savefig(path, dpi=110, metadata={"Software": None})


def with_metric(row: dict, metric: str) -> dict:
    """The record with another metric of the same result as its value, None where it is missing."""
    value = row["metrics"].get(metric)
    lower = metric in LOWER
    if lower and value is not None and value <= 0:
        value = None  # float32 itself: no place on a logarithmic axis
    return row | {"metric": metric, "value": value, "higher_is_better": not lower}


def front(rows: list[dict], cost: str = "luts") -> list[dict]:
    """The rows that no other row beats: nothing costs at most as much and is better. By ascending cost."""
    sign = 1 if rows and rows[0]["higher_is_better"] else -1
    kept: list[dict] = []
    for row in sorted(rows, key=lambda row: (row[cost], -sign * row["value"])):
        if not kept or sign * row["value"] > sign * kept[-1]["value"]:
            kept.append(row)
    return kept


def _panel(ax, rows: list[dict]) -> None:
    methods = list(dict.fromkeys(row["method"] for row in rows if row["method"]))
    for family, color in COLORS.items():
        own = [r for r in rows if r["family"] == family and r["luts"] is not None and r["value"] is not None]
        if not own:
            continue
        for method in methods:
            points = [row for row in own if row["method"] == method]
            style = {"marker": MARKERS[methods.index(method) % len(MARKERS)], "color": color, "alpha": 0.7}
            label = f"{family}, {method}"
            ax.scatter([r["luts"] for r in points], [r["value"] for r in points], s=26, label=label, **style)
        best = front(own)
        ax.step([r["luts"] for r in best], [r["value"] for r in best], where="post", color=color, linewidth=1.4)
        for row in best:
            up = (-4, 5) if family == "int" else (4, -11)
            name = row["weight"].split("-")[0]
            ax.annotate(name, (row["luts"], row["value"]), up, textcoords="offset points", color=color, fontsize=8)
    for row in rows:
        if row["family"] == "float32" and row["value"] is not None:
            ax.axhline(row["value"], color="0.5", linewidth=0.8, linestyle=":")
    ax.set(title=rows[0]["task"], xlabel="LUTs per multiply-accumulate", ylabel=rows[0]["metric"].replace("_", " "))
    if rows[0]["metric"] in LOWER:
        ax.set_yscale("log")
    ax.grid(color="0.9")
    ax.set_axisbelow(True)
    ax.legend(fontsize=7, loc="best")
