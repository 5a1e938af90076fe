"""The page: records, plotly and our own script in one file that needs no network."""

from __future__ import annotations

import json
from importlib import resources
from string import Template


def page(rows: list[dict]) -> str:
    """HTML of about 5 MB, nearly all of it plotly.

    Args:
        rows: from rows.rows, at least one.
    """
    from plotly.offline import get_plotlyjs

    data = json.dumps(rows, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")  # no tag can end the script
    parts = {name: _asset(f"page.{name}") for name in ("css", "js")}
    return Template(_asset("page.html")).substitute(rows=data, plotly=get_plotlyjs(), **parts)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
