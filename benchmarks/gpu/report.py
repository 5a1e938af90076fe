"""The table of ratios and the plot of one run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

BASE = "cuBLAS fp16"
BYTES_PER_US = 3.0e6  # what an H100's memory was seen to move, where a result does not say what its GPU's does


def _by_case(result: dict) -> dict[tuple[int, int], dict[str, dict[int, dict]]]:
    cases: dict = {}
    for record in result["records"]:
        shape = cases.setdefault((record["n"], record["k"]), {})
        shape.setdefault(record["contender"], {})[record["m"]] = record
    return cases


def table(result: dict) -> str:
    """Markdown: per shape, time in us and the ratio of cuBLAS fp16's time to it (above 1 is faster)."""
    lines = [f"# {result['gpu']}, {result['date']}", "", f"torch {result['torch']}, CUDA {result['cuda']}.", ""]
    lines += [f"{result['method']}. us (x times as fast as {BASE})."]
    rate = result.get("copied_bytes_per_us", BYTES_PER_US)
    for (n, k), contenders in _by_case(result).items():
        batches = sorted({m for cells in contenders.values() for m in cells})
        lines += [
            "",
            f"## N={n}, K={k}",
            "",
            "| | " + " | ".join(f"M={m}" for m in batches) + f" | bytes / {rate / 1e6:.1f} TB/s |",
        ]
        lines += ["|---|" + "---|" * (len(batches) + 1)]
        for name, cells in contenders.items():
            texts = [_cell(cells.get(m), contenders.get(BASE, {}).get(m)) for m in batches]
            bits = next(iter(cells.values()))["bits"]
            lines += [f"| {name} | " + " | ".join(texts) + f" | {n * k * bits / 8 / rate:.1f} |"]
    lines += _gaps(result)
    return "\n".join(lines) + "\n"


def _gaps(result: dict) -> list[str]:
    """Why cells are empty: per contender, each reason once with how many cases it cost."""
    reasons: Counter = Counter((r["contender"], r["missing"]) for r in result["records"] if "missing" in r)
    if not reasons:
        return []
    lines = [f"- {name}, {count} cases: {reason}" for (name, reason), count in reasons.items()]
    return ["", "## Not measured", "", *lines]


def _cell(record: dict | None, base: dict | None) -> str:
    if not record or "time_us" not in record:
        return "-"
    text = f"{record['time_us']:.1f}"
    return f"{text} ({base['time_us'] / record['time_us']:.2f}x)" if base and "time_us" in base else text


def plot(result: dict, path: Path) -> None:
    """Time against batch, a panel per shape; left out, with a word, where matplotlib is not installed."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("no plot: matplotlib is not installed")
        return
    cases = _by_case(result)
    figure, axes = plt.subplots(1, len(cases), figsize=(6 * len(cases), 5), squeeze=False)
    for axis, ((n, k), contenders) in zip(axes[0], cases.items(), strict=True):
        for name, cells in contenders.items():
            points = sorted((m, r["time_us"]) for m, r in cells.items() if "time_us" in r)
            if points:
                axis.plot(
                    *zip(*points, strict=True), marker="o", ls="-" if name.startswith("ours") else "--", label=name
                )
        axis.set(xscale="log", yscale="log", title=f"N={n}, K={k}", xlabel="M", ylabel="us")
    axes[0][-1].legend(fontsize=7)
    figure.suptitle(f"{result['gpu']}, {result['date']}")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
