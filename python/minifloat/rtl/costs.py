"""The measured costs that ship with the package: which circuit is cheapest for a pair of formats, and what it takes."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

FILE = Path(__file__).with_name("costs.json")


@lru_cache(maxsize=1)
def load() -> dict:
    """{"tool", "flow", "mac": {"w a": entry}, ...}; empty tables if nothing was measured yet."""
    if not FILE.exists():
        return {"mac": {}}
    return json.loads(FILE.read_text())


def cheapest(weight: str, activation: str) -> str | None:
    """The circuit with the fewest LUTs for these formats, None if the pair was not measured in either order."""
    table = load()["mac"]
    entry = table.get(f"{weight} {activation}") or table.get(f"{activation} {weight}")
    return entry and entry["variant"]


def save(data: dict) -> None:
    """Write the table, one entry a line, and forget the loaded one."""
    lines = []
    for key, value in data.items():
        if isinstance(value, dict) and value:
            rows = ",\n".join(f"    {json.dumps(name)}: {json.dumps(entry)}" for name, entry in value.items())
            lines.append(f"  {json.dumps(key)}: {{\n{rows}\n  }}")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value)}")
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    load.cache_clear()
