"""The progress bar: absent unless stderr is a terminal and the work is long."""

import io
import sys

import pytest

from minifloat.nn import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def open_terminal(monkeypatch) -> Terminal:
    """Called in the test itself: pytest puts its own stderr back after fixtures."""
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("TERM", "xterm")
    return sys.stderr


def test_shown_on_a_terminal_when_it_takes_long(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(progress, "DELAY_S", -1)
    assert list(progress.track(["a", "b"], "quantizing")) == ["a", "b"]
    assert "quantizing" in terminal.getvalue()


def test_not_shown_when_it_is_quick(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(progress, "DELAY_S", 1e9)
    assert list(progress.track(iter("ab"), "quantizing")) == ["a", "b"]
    assert terminal.getvalue() == ""


def test_not_shown_without_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(progress, "DELAY_S", -1)
    assert list(progress.track(["a", "b"], "quantizing")) == ["a", "b"]
    assert capsys.readouterr().err == ""


def test_cleans_up_after_an_error(monkeypatch):
    terminal = open_terminal(monkeypatch)
    monkeypatch.setattr(progress, "DELAY_S", -1)
    with pytest.raises(RuntimeError, match="halfway"):
        for item in progress.track(["a", "b", "c"], "quantizing"):
            if item == "b":
                raise RuntimeError("halfway")
    assert terminal.getvalue().rindex("\x1b[?25h") > terminal.getvalue().rindex("\x1b[?25l")  # the cursor is back
    assert sys.stderr is terminal
