"""The file that most checkpoint tests start from."""

import pytest

import minifloat as mf
from checkpoint.nets import quantized


@pytest.fixture
def path(tmp_path):
    """A file with quantized(0) in it."""
    mf.save(quantized(), tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"
