"""Compiles every kernel with every config ahead of time, with no GPU, and records what each needs.

    python -m minifloat.kernels.triton.resources     brings resources.json up to date, which configs.prune reads

Only what changed is compiled: each row holds a hash of its source (variants.py). Everything takes most of an hour.

Registers are per thread; spills are bytes of memory per thread (what AMD's compiler spills from scalar to vector
registers does not leave the chip and is not counted); shared memory is in bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import triton

from .configs import HERE
from .variants import Variant, variants

TABLE = HERE / "resources.json"


def report(compiled, target: str) -> dict[str, int]:
    """{"shared": bytes, "registers": per thread, "spills": 0 if everything stayed in registers}."""
    if target.startswith("gfx"):
        text = compiled.asm["amdgcn"]
        count = {name: int(value) for name, value in re.findall(r"\.(\w+_count):\s+(\d+)", text)}
        scratch = int(re.search(r"\.private_segment_fixed_size:\s+(\d+)", text).group(1))
        return {"shared": compiled.metadata.shared, "registers": count["vgpr_count"], "spills": scratch}
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        text = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    usage = {name: int(value) for name, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
    return {
        "shared": compiled.metadata.shared,
        "registers": usage["REG"],
        "spills": usage["STACK"] + usage["LOCAL"],
    }


def names_of(variant: Variant, target: str) -> dict:
    """What a row of resources.json is about."""
    return {
        "kernel": variant.kernel,
        "formats": variant.name,
        "config": str(variant.config) if variant.config else "",
        "target": target,
        "kind": variant.kind,
        "x": variant.x,
        "source": variant.source,
    }


def row(variant: Variant, target: str) -> dict:
    """One row of resources.json."""
    return {**names_of(variant, target), **report(variant.compile(target), target)}


def row_at(index: int, target: str) -> dict:
    """Row of variants()[index], which cannot itself be sent to another process."""
    return row(variants()[index], target)


def known(table: Path) -> dict[tuple, dict]:
    """{names_of, as a tuple: row} of a table made with this Triton; empty if there is none."""
    stored = json.loads(table.read_text()) if table.is_file() else {}
    if stored.get("triton") != triton.__version__:
        return {}
    needs = ("shared", "registers", "spills")
    return {tuple(value for name, value in r.items() if name not in needs): r for r in stored["rows"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=TABLE)
    parser.add_argument("--jobs", type=int, default=1, help="processes that compile")
    parser.add_argument("--all", action="store_true", help="compile everything again")
    arguments = parser.parse_args()
    old = {} if arguments.all else known(arguments.out)
    wanted = [(i, v, target) for i, v in enumerate(variants()) for target in v.targets]
    rows = [old.get(tuple(names_of(v, target).values())) for _, v, target in wanted]
    todo = [at for at, found in enumerate(rows) if found is None]
    with ProcessPoolExecutor(arguments.jobs) as pool:
        made = pool.map(row_at, [wanted[at][0] for at in todo], [wanted[at][2] for at in todo])
        for count, (at, found) in enumerate(zip(todo, made, strict=True)):
            rows[at] = found
            print(f"\r{count + 1} of {len(todo)} kernels", end="", file=sys.stderr, flush=True)
    lines = ",\n".join(map(json.dumps, rows))
    arguments.out.write_text(f'{{"triton": "{triton.__version__}", "rows": [\n{lines}\n]}}\n')
    print(f"\nwrote {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
