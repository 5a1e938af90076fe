"""The hand-written SystemVerilog and C++ of kernels/rtl, in a checkout or installed."""

from __future__ import annotations

from pathlib import Path


def asset(name: str) -> Path:
    """The path of a file of kernels/rtl.

    Raises:
        FileNotFoundError: it is in neither place.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "kernels" / "rtl", package.parents[1] / "kernels" / "rtl"):
        if (folder / name).is_file():
            return folder / name
    raise FileNotFoundError(f"kernels/rtl/{name} is neither in this checkout nor installed with the package")
