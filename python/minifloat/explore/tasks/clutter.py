"""A ViT that reads numbers of four digits among clutter, trained here on scikit-learn's digits.

The images are made as in cluttered MNIST (Mnih et al., "Recurrent Models of Visual Attention", 2014), with four digits
in a row instead of one: each is moved a little and has a brightness of its own, a piece of another digit lies
somewhere, and there is noise. Test images are made of digits that no training image holds a part of.
"""

from __future__ import annotations

import torch
from torch import nn

from .base import Task
from .digits import TRAINING, digits, trained
from .digits_models import ViT
from .mobilenet import agreement, logits, mean_kl
from .packages import require

PLACES, HEIGHT, WIDTH = 4, 12, 32  # digits, pixels
DIGIT, PIECE, PIECES = 8, 4, 1  # pixels, pixels, how many pieces
NOISE = 0.1  # standard deviation, where ink is at most 1
SAMPLES, CALIBRATION, BATCH = 4000, 512, 64  # images
STEPS, RATE = 4000, 3e-3  # of training; each step has new images


def load(samples: int | None = None) -> Task:
    """samples: test images."""
    require("numbers-vit", "sklearn")
    images, labels = digits()
    ink = (images[:, 0] + 1) / 2
    seen, unseen = (ink[:TRAINING], labels[:TRAINING]), (ink[TRAINING:], labels[TRAINING:])
    model = trained(f"numbers-vit-{STEPS}", lambda: ViT(HEIGHT, WIDTH, PLACES), lambda model: _train(model, *seen))
    calibration = numbers(*seen, CALIBRATION, torch.Generator().manual_seed(1))[0]
    tests, truth = numbers(*unseen, samples or SAMPLES, torch.Generator().manual_seed(2))
    reference = logits(model, tests.split(BATCH)).flatten(0, 1)

    def evaluate(quantized: nn.Module) -> dict[str, float]:
        found = logits(quantized, tests.split(BATCH)).flatten(0, 1)
        right = (found.argmax(1) == truth.flatten()).view(truth.shape)
        return {
            "accuracy": right.all(1).double().mean().item(),
            "digit_accuracy": right.double().mean().item(),
            "agreement": agreement(found, reference),
            "kl": mean_kl(found, reference),
        }

    about = f"{len(tests)} test images of four digits, right if all are; calibrated on {CALIBRATION} training images"
    return Task("numbers-vit", model, list(calibration.split(BATCH)), evaluate, "accuracy", True, about)


def numbers(
    ink: torch.Tensor, labels: torch.Tensor, count: int, random: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Images (count, 1, HEIGHT, WIDTH), about -1..1, and their digits (count, PLACES).

    Args:
        ink: (n, DIGIT, DIGIT) in 0..1, the digits to take. labels: (n,).
    """

    def below(end: int) -> torch.Tensor:
        return torch.randint(end, (count,), generator=random)

    def brightness() -> torch.Tensor:
        return 0.5 + 0.5 * torch.rand(count, 1, 1, generator=random)

    canvas = torch.zeros(count, HEIGHT, WIDTH + 2)  # a column more on either side: the outer digits may stand over
    chosen = torch.stack([below(len(ink)) for _ in range(PLACES)], 1)
    for place in range(PLACES):
        window = _window(canvas, below(HEIGHT - DIGIT + 1), DIGIT * place + below(3), DIGIT)
        canvas[window] = canvas[window].maximum(ink[chosen[:, place]] * brightness())
    for _ in range(PIECES):
        source = ink[below(len(ink))]
        piece = source[_window(source, below(DIGIT - PIECE + 1), below(DIGIT - PIECE + 1), PIECE)] * brightness()
        window = _window(canvas, below(HEIGHT - PIECE + 1), below(canvas.shape[2] - PIECE + 1), PIECE)
        canvas[window] = canvas[window].maximum(piece)
    canvas += NOISE * torch.randn(canvas.shape, generator=random)
    return 2 * canvas[:, None, :, 1:-1] - 1, labels[chosen]


def _window(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
    """Indices of a square of each image (B, H, W): rows from top (B,), columns from left (B,)."""
    along = torch.arange(side)
    return (
        torch.arange(len(images))[:, None, None],
        (top[:, None] + along)[:, :, None],
        (left[:, None] + along)[:, None, :],
    )


def _train(model: nn.Module, ink: torch.Tensor, labels: torch.Tensor) -> None:
    """AdamW with a one-cycle rate, on new images at each step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=STEPS)
    random = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        x, truth = numbers(ink, labels, BATCH, random)
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), truth.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
