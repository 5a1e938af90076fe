"""Commands with a limit of time, of which nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def environment(**more: str) -> dict[str, str]:
    """With the package on Python's path, and the interpreter's own folder on the other: torch looks for ninja there."""
    python = os.pathsep.join(filter(None, (str(ROOT / "python"), os.environ.get("PYTHONPATH"))))
    path = os.pathsep.join(filter(None, (str(Path(sys.executable).parent), os.environ.get("PATH"))))
    return {**os.environ, "PYTHONPATH": python, "PATH": path, **more}


def start(command: list[str], **options) -> subprocess.Popen:
    """In a session of its own, so that stop() reaches its children too."""
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **options)


def stop(process: subprocess.Popen) -> str:
    """What it had still to say. A process that waits for a GPU which hangs may outlive this."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):
        return process.communicate(timeout=10)[0] or ""
    return ""


def ended(code: int) -> str:
    return f"ended with {signal.Signals(-code).name if code < 0 else f'exit status {code}'}"


def run(command: list[str], seconds: float, show: bool = False, **more: str) -> tuple[int | str, str]:
    """(exit status, or how it ended otherwise; output). show: the output goes to this program's instead."""
    output = None if show else subprocess.PIPE
    process = start(
        command, env=environment(**more), stdout=output, stderr=None if show else subprocess.STDOUT, text=True
    )
    try:
        text = process.communicate(timeout=seconds)[0] or ""
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s", stop(process)
    except BaseException:  # this program is being stopped
        stop(process)
        raise
    return (process.returncode if process.returncode >= 0 else ended(process.returncode)), text
