"""Fidelity against size: one figure, as PNG for the README and as SVG for the page."""

import html
import io
from pathlib import Path

from .measure import Result

# Okabe-Ito colours, told apart by colour-blind readers too; a shape for each as well.
WEIGHT_ONLY = {
    "mfc": "#0072B2",
    "mec": "#0072B2",
    "marker": "o",
    "zorder": 3,
    "label": "weights only (float32 activations)",
}
WITH_INT8 = {"mfc": "none", "mec": "#D55E00", "marker": "s", "ms": 9, "zorder": 2, "label": "int8-row activations"}
WITH_SAME = {
    "mfc": "none",
    "mec": "#009E73",
    "marker": "^",
    "ms": 9,
    "zorder": 2,
    "label": "activations in the weights' own format",
}


def figure(results: list[Result], float32_bytes: int):
    """Return the matplotlib figure: 1 - cosine (log, lower is better) over bits per weight, every format labelled."""
    from matplotlib.figure import Figure  # not pyplot: no global state and no window

    fig = Figure(figsize=(9, 5.4), layout="constrained")
    ax = fig.add_subplot()
    for style, chosen in _series(results):
        for result in chosen:
            (line,) = ax.plot(result.bits_per_weight, _distance(result), ls="none", mew=1.8, **style)
            line.set_gid(_gid(results.index(result)))
            style = {**style, "label": None}
    for result, side in _labels(results):
        ax.annotate(
            result.setting.weight,
            (result.bits_per_weight, _distance(result)),
            xytext=(-8, 0) if side == "left" else (8, 0),
            textcoords="offset points",
            ha="right" if side == "left" else "left",
            va="center",
        )
    note = "float32: 32 bits, distance 0 \N{SOUTH EAST ARROW}"
    ax.text(0.99, 0.02, note, transform=ax.transAxes, ha="right", va="bottom", color="#555555")
    ax.set_yscale("log")
    ax.set_xlim(min(r.bits_per_weight for r in results) - 0.7, max(r.bits_per_weight for r in results) + 0.7)
    ax.margins(y=0.15)
    ax.set_xlabel("bits per weight of the Linear layers, scales included")
    ax.set_ylabel("1 - mean cosine to float32 (lower is better)")
    ax.set_title("all-MiniLM-L6-v2: what each format keeps of the float32 embeddings", fontsize=12)
    _add_file_sizes(ax, results[0], float32_bytes)
    ax.grid(True, which="major", color="#dddddd", lw=0.8)
    ax.set_axisbelow(True)
    ax.spines["right"].set_visible(False)
    ax.legend(loc="upper right", frameon=False)
    return fig


def write_png(fig, path: Path) -> None:
    """Write the figure at a README's resolution."""
    fig.savefig(path, dpi=130, format="png", metadata={"Software": None})


def svg(fig, results: list[Result]) -> str:
    """Return the figure as an <svg> element in which every point shows its figures on hover."""
    buffer = io.StringIO()
    fig.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    for i, result in enumerate(results):
        tip = f"{result.setting.name}: {result.bits_per_weight:.2f} bits per weight, cosine {result.cosine:.5f}"
        tag = f'<g id="{_gid(i)}">'
        text = text.replace(tag, f"{tag}<title>{html.escape(tip)}</title>")
    return text


def _add_file_sizes(ax, result: Result, float32_bytes: int) -> None:
    """Add an axis above that tells the checkpoint's size: the rest of the model stays float32, so it is a line."""
    mb_per_bit = (float32_bytes - result.file_bytes) / 1e6 / (32 - result.bits_per_weight)
    offset_mb = float32_bytes / 1e6 - 32 * mb_per_bit
    size = ax.secondary_xaxis(
        "top", functions=(lambda bits: offset_mb + bits * mb_per_bit, lambda mb: (mb - offset_mb) / mb_per_bit)
    )
    size.set_xlabel(f"checkpoint file, MB (float32: {float32_bytes / 1e6:.1f})")


def _distance(result: Result) -> float:
    """1 - cosine, kept on the log axis."""
    return max(1 - result.cosine, 1e-9)


def _labels(results: list[Result]):
    """Return one point of each weight format, its best, and the side of it that is free for the format's name."""
    best: dict[str, Result] = {}
    for result in results:
        known = best.setdefault(result.setting.weight, result)
        if _distance(result) < _distance(known):
            best[result.setting.weight] = result
    for point in best.values():
        crowded = any(
            0 < other.bits_per_weight - point.bits_per_weight < 0.4 and 0.25 < _distance(other) / _distance(point) < 4
            for other in best.values()
        )
        yield point, "left" if crowded else "right"


def _gid(i: int) -> str:
    return f"result-{i}"


def _series(results: list[Result]):
    """Return the results in the three groups the figure tells apart."""
    return [
        (WEIGHT_ONLY, [r for r in results if r.setting.activation is None]),
        (WITH_INT8, [r for r in results if r.setting.activation == "int8-row"]),
        (WITH_SAME, [r for r in results if r.setting.activation not in (None, "int8-row")]),
    ]
