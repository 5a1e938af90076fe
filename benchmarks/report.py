"""Tables and plots from a result file: python -m benchmarks.report [benchmarks/results/....json]"""

from __future__ import annotations

import sys
from pathlib import Path

from . import results_file
from .results_file import OURS, READING

BASELINE = "torch float32"
RESULTS = Path(__file__).resolve().parent / "results"


def is_ours(name: str) -> bool:
    return name.startswith(OURS)


def is_peer(name: str) -> bool:
    return not name.startswith((OURS, READING))


def best_peer(cell: dict, widths: range, statistic: str = "best_us") -> tuple[str, float] | None:
    """The fastest contender that is not ours and whose weights have one of these widths: name and us."""
    peers = {
        name: stats[statistic]
        for name, stats in cell["contenders"].items()
        if is_peer(name) and stats["width"] in widths
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
                "name": name.removeprefix(OURS),
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
        for cell in cells:
            lines += reading_table(cell)
        lines += ["", "Best peer of each width:", "", *best_table(cells, statistic)]
        lines += ["", "Every peer:", "", *peer_table(cells, statistic)]
    if results["skipped"]:
        reasons = {}
        for name, reason in results["skipped"].items():
            reasons.setdefault(reason, []).append(name)
        lines += ["", "Skipped, with the first place where: "]
        lines += ["", *(f"- {reason}: {', '.join(names)}" for reason, names in reasons.items())]
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
            entries.append(ratio_entry(row) if row else "")
        bits = next(table[name]["bits"] for table in tables if name in table)
        lines.append(f"| {name} | {bits:.3g} | " + " | ".join(entries) + " |")
    base = [f"{cell['contenders'][BASELINE][statistic]:.0f} us" for cell in cells]
    lines.append("| *torch float32* | 32 | " + " | ".join(base) + " |")
    return lines


def ratio_entry(row: dict) -> str:
    """ours / best peer of that width / limit; ours in bold where no peer of that width is faster."""
    peer = row["same_width"] and row["same_width"][1]
    ours = f"{row['ratio']:.1f}" if peer and peer > row["ratio"] else f"**{row['ratio']:.1f}**"
    return " / ".join([ours, f"{peer:.1f}" if peer else "none", f"{row['limit']:.1f}" if row["limit"] else "?"])


def reading_table(cell: dict) -> list[str]:
    """How long the packed weights take to read, beside the layers that read them; nothing where not measured."""
    by_width = {int(name.split()[1]): stats for name, stats in cell["contenders"].items() if name.startswith(READING)}
    lines = []
    for name, ours in cell["contenders"].items():
        if not is_ours(name) or ours["width"] not in by_width:
            continue
        reading, base = by_width[ours["width"]], cell["contenders"][BASELINE]
        entries = [name.removeprefix(OURS)]
        for statistic in ("best_us", "median_us"):
            read_us = reading[statistic] * ours["bits"] / reading["bits"]
            shares = f"{read_us / ours[statistic]:.0%}", f"{base[statistic] / read_us:.1f}"
            entries += [f"{read_us:.0f}", f"{ours[statistic]:.0f}", *shares]
        lines.append("| " + " | ".join(entries) + " |")
    if not lines:
        return []
    head = [f"{what}, {word}" for word in ("best", "median") for what in ("read us", "ours us", "share", "x float32")]
    return [
        "",
        f"M = {cell['m']}: the time in which the threads read the packed weights and do nothing else, the layer's, "
        "the first as a share of the second, and the ratio to torch float32 of a layer that would only read.",
        "",
        "| weights | " + " | ".join(head) + " |",
        "|---" * (len(head) + 1) + "|",
        *lines,
    ]


def best_table(cells: list[dict], statistic: str) -> list[str]:
    """Which peer is the fastest of each width."""
    lines = ["| bits | " + " | ".join(f"M={cell['m']}" for cell in cells) + " |", "|---" * (len(cells) + 1) + "|"]
    widths = [("1, 2", range(1, 3)), *((str(b), range(b, b + 1)) for b in range(3, 9)), ("up to 8", range(1, 9))]
    for label, widths_of_row in [*widths, ("float", range(16, 33))]:
        entries = []
        for cell in cells:
            found = best_peer(cell, widths_of_row, statistic)
            base = cell["contenders"][BASELINE][statistic]
            entries.append(f"{base / found[1]:.2f} {found[0]}" if found else "")
        if any(entries):
            lines.append(f"| {label} | " + " | ".join(entries) + " |")
    return lines


def peer_table(cells: list[dict], statistic: str) -> list[str]:
    names = list(dict.fromkeys(name for cell in cells for name in cell["contenders"] if is_peer(name)))
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
    results = results_file.read(path)
    tables = path.with_suffix(".md")
    tables.write_text(markdown(results, statistic))
    try:
        from .plots import write_plots
    except ImportError as reason:  # matplotlib is optional
        print(f"plots skipped: {reason}")
        return [tables]
    return [tables, *write_plots(results, path, statistic)]


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
