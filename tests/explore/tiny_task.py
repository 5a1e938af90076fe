"""A task of one's own, small enough to sweep in a test: `tiny_task.py:load`."""

import os
import time

import torch
from torch import nn

from minifloat.explore.tasks import Task


def load(samples):
    """Two layers on random data; the metric is the cosine to what float32 says."""
    random = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 8)).eval()
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) / 8
    tests = torch.randn(samples or 64, 32, generator=random)
    with torch.no_grad():
        reference = model(tests)

    @torch.no_grad()
    def evaluate(quantized):
        if path := os.environ.get("MEASURED"):  # lets a test count what was really measured
            with open(path, "a", encoding="utf-8") as file:
                file.write("x")
        time.sleep(float(os.environ.get("DELAY_S", 0)))  # lets a test interrupt a sweep
        return {"cosine": nn.functional.cosine_similarity(quantized(tests), reference).mean().item()}

    batches = [torch.randn(32, 32, generator=random) for _ in range(2)]
    return Task("tiny", model, batches, evaluate, "cosine", True, "random data")


def not_a_task(samples):
    return samples
