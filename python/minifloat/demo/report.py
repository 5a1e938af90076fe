"""What the demo leaves behind: a rich table, demo.json, and demo.html with the plot and the table in one file."""

import html
import json
from pathlib import Path

from rich import box
from rich.table import Table

from .measure import Result

# heading, justification
COLUMNS = [
    ("weights", "left"),
    ("activations", "left"),
    ("bits/\nweight", "right"),
    ("file\nMB", "right"),
    ("cosine to\nfloat32", "right"),
    ("same\nneighbour", "right"),
    ("ms/\nbatch", "right"),
    ("float32\nms/batch", "right"),
    ("times\nfaster", "right"),
    ("outputs against the emulator", "left"),
]


def row(result: Result) -> list[str]:
    """Return one line of the table as text, in the order of COLUMNS."""
    return [
        result.setting.weight,
        result.setting.activation or "float32",
        f"{result.bits_per_weight:.2f}",
        f"{result.file_bytes / 1e6:.1f}",
        f"{result.cosine:.5f}",
        f"{result.neighbour_agreement:.1%}",
        f"{result.time_ms:.0f}",
        f"{result.float32_time_ms:.0f}",
        f"{result.speedup:.2f}",
        str(result.check),
    ]


def float32_row(float32_bytes: int) -> list[str]:
    """Return the line that the others are compared with."""
    return ["float32", "float32", "32.00", f"{float32_bytes / 1e6:.1f}", "1", "100.0%", "", "", "1", ""]


def table(results: list[Result], float32_bytes: int, about: str) -> Table:
    """Return the demo's one table.

    Args:
        about: a line on what was run and where, printed below.
    """
    out = Table(box=box.SIMPLE, pad_edge=False, caption=about, caption_justify="left")
    for heading, justify in COLUMNS:
        out.add_column(heading, justify=justify, no_wrap=True)
    out.add_row(*float32_row(float32_bytes), style="dim", end_section=True)
    for before, result in zip([None, *results], results, strict=False):
        if before is not None and before.setting.weight != result.setting.weight:
            out.add_section()
        out.add_row(*row(result))
    return out


def write_json(path: Path, results: list[Result], float32_bytes: int, machine: dict) -> None:
    """Write everything measured and what it was measured on."""
    rows = [
        {
            "weight": r.setting.weight,
            "activation": r.setting.activation,
            "bits_per_weight": r.bits_per_weight,
            "file_bytes": r.file_bytes,
            "cosine": r.cosine,
            "neighbour_agreement": r.neighbour_agreement,
            "time_ms": r.time_ms,
            "float32_time_ms": r.float32_time_ms,
            "speedup": r.speedup,
            "outputs_checked": r.check.outputs,
            "outputs_equal": r.check.equal,
            "error_over_bound": r.check.error_over_bound,
        }
        for r in results
    ]
    document = {"machine": machine, "float32_file_bytes": float32_bytes, "results": rows}
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>minifloat demo</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff }}
body {{ max-width: 68rem; margin: 2rem auto; padding: 0 1rem }}
p {{ white-space: pre-line }}
svg {{ width: 100%; height: auto }}
div {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .2rem .7rem; text-align: right; white-space: nowrap }}
th {{ border-bottom: 1px solid #888; vertical-align: bottom }}
.left {{ text-align: left }}
tr:hover td {{ background: #f2f2f2 }}
</style></head><body>
<h1>One sentence encoder, {count} ways</h1>
<p>{about}</p>
{plot}
<div><table><thead><tr>{head}</tr></thead><tbody>
{body}
</tbody></table></div>
</body></html>
"""


def write_html(path: Path, results: list[Result], float32_bytes: int, about: str, plot_svg: str) -> None:
    """Write a page that needs nothing else: the plot is inline SVG whose points tell their figures on hover."""
    css = [f' class="{justify}"' if justify == "left" else "" for _, justify in COLUMNS]

    def cells(tag: str, texts: list[str]) -> str:
        return "".join(f"<{tag}{c}>{html.escape(t)}</{tag}>" for c, t in zip(css, texts, strict=True))

    lines = [float32_row(float32_bytes), *map(row, results)]
    page = _PAGE.format(
        count=len(results),
        about=html.escape(about),
        plot=plot_svg,
        head=cells("th", [heading.replace("\n", " ").replace("/ ", "/") for heading, _ in COLUMNS]),
        body="\n".join(f"<tr>{cells('td', line)}</tr>" for line in lines),
    )
    path.write_text(page, encoding="utf-8")
