"""Where the kernels of these tests run: a GPU, or the CPU where Triton interprets them. Otherwise tests are skipped."""

import importlib.util
import os

import pytest
import torch

from minifloat.nn.prepared import on_device

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed: pip install triton", allow_module_level=True)
if os.environ.get("TRITON_INTERPRET") == "1":
    DEVICE = "cpu"
elif torch.cuda.is_available():
    DEVICE = "cuda"
else:
    pytest.skip("no GPU: test_interpreter.py runs these tests on the CPU", allow_module_level=True)


def to_device(q):
    """The QTensor with its tensors on DEVICE."""
    return on_device(q, torch.device(DEVICE))
