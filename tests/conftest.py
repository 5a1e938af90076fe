"""What every test runs under: the same random numbers each time, and no change left for the next test."""

import pytest
import torch

try:
    from hypothesis import settings
except ImportError:  # a machine with a GPU may lack it: the tests for that do without
    settings = None

if settings:
    # A time limit per example would fail on a loaded machine, and no test here asserts a speed.
    settings.register_profile("minifloat", deadline=None)
    settings.load_profile("minifloat")


@pytest.fixture(autouse=True)
def _seed():
    """A test that draws its data passes every time or never, whichever tests ran before it in its process."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _restore_torch_threads():
    """torch.set_num_threads is process-wide: put it back, so that a test that varies it cannot slow the others."""
    threads = torch.get_num_threads()
    yield
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
