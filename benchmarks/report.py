"""Tables and plots from a result file: python benchmarks/report.py [benchmarks/results/....json]"""

from __future__ import annotations

import json
import sys
from pathlib import Path

BASELINE = "torch float32"
RESULTS = Path(__file__).resolve().parent / "results"


def is_ours(name: str) -> bool:
    return name.startswith("ours ")


def best_peer(cell: dict, widths: range, statistic: str = "best_us") -> tuple[str, float] | None:
    """The fastest contender that is not ours and whose weights have one of these widths: name and us."""
    peers = {
        name: stats[statistic]
        for name, stats in cell["contenders"].items()
        if not is_ours(name) and stats["width"] in widths
    }
    return min(peers.items(), key=lambda item: item[1]) if peers else None


def rows(cell: dict, statistic: str = "best_us") -> list[dict]:
    """One row per format of ours, as ratios to torch float32 in the same cell.

    same_width: best peer whose weights have as many bits, 1 and 2 counting as one. any_width: best quantized peer.
    limit: what the machine's ceilings would allow. fraction: how much of it is reached.
    """
    base = cell["contenders"][BASELINE][statistic]
    out = []
    for name, stats in cell["contenders"].items():
        if not is_ours(name):
            continue
        width = stats["width"]
        same = best_peer(cell, range(1, 3) if width <= 2 else range(width, width + 1), statistic)
        anyone = best_peer(cell, range(1, 9), statistic)
        us, limit = stats[statistic], stats["limit_us"]
        out.append(
            {
                "name": name.removeprefix("ours "),
                "width": width,
                "bits": stats["bits"],
                "us": us,
                "ratio": base / us,
                "spread": (stats["p90_us"] - stats["p10_us"]) / stats["median_us"],
                "same_width": same and (same[0], base / same[1]),
                "any_width": anyone and (anyone[0], base / anyone[1]),
                "limit": limit and base / limit,
                "fraction": limit and limit / us,
            }
        )
    return out


def cell_title(cell: dict) -> str:
    return f"N={cell['n']} K={cell['k']} M={cell['m']}, {cell['threads']} thread{'s' * (cell['threads'] > 1)}"


def cell_lines(cell: dict, statistic: str = "best_us") -> list[str]:
    """Every contender of a cell, fastest first, for the terminal."""
    base = cell["contenders"][BASELINE][statistic]
    lines = ["", cell_title(cell), f"{'':38} {'best':>9} {'median':>9} {'p10..p90 us':>19}  ratio  of limit"]
    for name, s in sorted(cell["contenders"].items(), key=lambda item: item[1][statistic]):
        fraction = f"{s['limit_us'] / s[statistic]:8.0%}" if s["limit_us"] else ""
        digits = ".0f" if s["p10_us"] >= 100 else ".3g"
        spread = f"{s['p10_us']:{digits}}..{s['p90_us']:{digits}}"
        lines.append(
            f"{name:38} {s['best_us']:9.1f} {s['median_us']:9.1f} {spread:>19} {base / s[statistic]:6.2f} {fraction}"
        )
    return lines


def markdown(results: dict, statistic: str = "best_us") -> str:
    """The tables of docs/performance.md: how each cell compares, and the peers in full."""
    machine = results["machine"]
    lines = [
        f"{machine['cpu']} ({', '.join(machine['flags'])}), ours on {machine['isa']}, torch on {machine['torch_isa']}; "
        f"commit {machine['commit']}, {machine['date'][:10]}; "
        + ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
        + f". Load when the run began: {machine['load_at_start']}.",
        "",
        *ceiling_table(results["ceilings"]),
    ]
    groups = {}
    for cell in results["cells"]:
        groups.setdefault((cell["n"], cell["k"], cell["threads"]), []).append(cell)
    word = statistic.removesuffix("_us")
    for (n, k, threads), cells in groups.items():
        lines += ["", f"### N = {n}, K = {k}, {threads} thread{'s' * (threads > 1)}", ""]
        lines += [f"Ratio to torch float32 ({word} of the rounds): ours / best peer of that width / limit.", ""]
        lines += ratio_table(cells, statistic)
        lines += ["", "Peers, ratio to torch float32:", "", *peer_table(cells, statistic)]
    if results["skipped"]:
        lines += ["", "Skipped: " + "; ".join(f"{what}: {why}" for what, why in results["skipped"].items())]
    return "\n".join(lines) + "\n"


def ceiling_table(ceilings: dict[str, dict]) -> list[str]:
    names = [name for name in next(iter(ceilings.values())) if name != "threads"]
    lines = ["| ceiling | " + " | ".join(f"{t} thread{'s' * (t != '1')}" for t in ceilings) + " |"]
    lines.append("|---" * (len(ceilings) + 1) + "|")
    for name in names:
        unit = "GB/s" if name.endswith("gbs") else "Gop/s"
        label = name.rsplit("_", 1)[0].replace("_", " ")
        lines.append(f"| {label}, {unit} | " + " | ".join(f"{c.get(name, 0):.0f}" for c in ceilings.values()) + " |")
    return lines


def ratio_table(cells: list[dict], statistic: str) -> list[str]:
    """Formats down, batch sizes across."""
    tables = [{row["name"]: row for row in rows(cell, statistic)} for cell in cells]
    header = "| weights | bits | " + " | ".join(f"M={cell['m']}" for cell in cells) + " |"
    lines = [header, "|---" * (len(cells) + 2) + "|"]
    for name, row in tables[0].items():
        entries = []
        for table in tables:
            row = table.get(name)
            peer = f"{row['same_width'][1]:.1f}" if row and row["same_width"] else "none"
            limit = f"{row['limit']:.1f}" if row and row["limit"] else "?"
            entries.append(f"**{row['ratio']:.1f}** / {peer} / {limit}" if row else "")
        bits = next(table[name]["bits"] for table in tables if name in table)
        lines.append(f"| {name} | {bits:.3g} | " + " | ".join(entries) + " |")
    base = [f"{cell['contenders'][BASELINE][statistic]:.0f} us" for cell in cells]
    lines.append("| *torch float32* | 32 | " + " | ".join(base) + " |")
    return lines


def peer_table(cells: list[dict], statistic: str) -> list[str]:
    names = list(dict.fromkeys(name for cell in cells for name in cell["contenders"] if not is_ours(name)))
    lines = ["| peer | " + " | ".join(f"M={cell['m']}" for cell in cells) + " |", "|---" * (len(cells) + 1) + "|"]
    for name in names:
        ratios = []
        for cell in cells:
            stats = cell["contenders"].get(name)
            base = cell["contenders"][BASELINE][statistic]
            ratios.append(f"{base / stats[statistic]:.2f}" if stats else "")
        lines.append(f"| {name} | " + " | ".join(ratios) + " |")
    return lines


def write_report(path: Path, statistic: str = "best_us") -> list[Path]:
    """Beside the result file: its tables as .md and one .png per batch size; returns what was written."""
    results = json.loads(path.read_text())
    tables = path.with_suffix(".md")
    tables.write_text(markdown(results, statistic))
    written = [tables]
    try:
        from .plots import write_plots
    except ImportError as reason:
        if __package__:
            print(f"plots skipped: {reason}")
            return written
        sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
        from benchmarks.plots import write_plots
    return written + write_plots(results, path, statistic)


def main(argv: list[str]) -> int:
    statistic = "median_us" if "--median" in argv else "best_us"
    paths = [Path(word) for word in argv if not word.startswith("-")] or sorted(RESULTS.glob("*.json"))[-1:]
    if not paths:
        print(f"no result files in {RESULTS}: run `make bench` first")
        return 1
    for path in paths:
        print("\n".join(str(p) for p in write_report(path, statistic)))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
