"""A CNN trained here on scikit-learn's digits, kept for the next time; judged by true test accuracy."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from .base import Task
from .digits_models import CNN
from .folding import fold_batch_norms
from .mobilenet import agreement, logits, mean_kl
from .packages import require

EPOCHS = 30
TRAINING, BATCH, CALIBRATION = 1000, 50, 500  # images; the other 797 are the test set
VERSION = 1  # raised when the networks or their training change, so that no stale weights are read


def load_cnn(samples: int | None = None) -> Task:
    """samples: test images."""
    name = "digits-cnn"
    require(name, "sklearn")
    images, labels = digits()
    model = trained(f"{name}-{EPOCHS}", CNN, lambda model: _train(model, images[:TRAINING], labels[:TRAINING]))
    fold_batch_norms(model)
    tests, truth = images[TRAINING:][:samples], labels[TRAINING:][:samples]
    reference = logits(model, tests.split(BATCH))

    def evaluate(quantized: nn.Module) -> dict[str, float]:
        found = logits(quantized, tests.split(BATCH))
        right = (found.argmax(1) == truth).double().mean().item()
        return {"accuracy": right, "agreement": agreement(found, reference), "kl": mean_kl(found, reference)}

    about = f"{len(tests)} test images of scikit-learn's digits; calibrated on {CALIBRATION} training images"
    calibration = list(images[:CALIBRATION].split(BATCH))
    return Task(name, model, calibration, evaluate, "accuracy", True, about)


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """(1797, 1, 8, 8) in -1..1 and (1797,), shuffled the same way every time."""
    from sklearn.datasets import load_digits

    data = load_digits()
    order = torch.randperm(len(data.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(data.images, dtype=torch.float32)[order, None] / 8 - 1
    return images, torch.tensor(data.target)[order]


def trained(file: str, network: Callable[[], nn.Module], train: Callable[[nn.Module], None]) -> nn.Module:
    """The network in eval mode, with its weights from this file of the cache, or trained and put there."""
    path = cache_folder() / f"{file}-v{VERSION}.pt"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = network()
        if path.exists():
            model.load_state_dict(torch.load(path, weights_only=True))
            return model.eval()
        train(model.train())
    model.eval()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}")  # renamed when whole: another process may be reading
    torch.save(model.state_dict(), partial)
    partial.replace(path)
    return model


def cache_folder() -> Path:
    """$MINIFLOAT_CACHE, or `minifloat` in the user's cache folder."""
    default = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "minifloat"
    return Path(os.environ.get("MINIFLOAT_CACHE") or default)


def _train(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    """AdamW with a one-cycle rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    random = torch.Generator().manual_seed(0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(images), generator=random).split(BATCH):
            loss = nn.functional.cross_entropy(model(images[rows]), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
