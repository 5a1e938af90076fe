"""The GRU of g2p-en, which spells words as phonemes, judged by the words of cmudict that it gets right.

Its recurrent weights feed back 20 to 40 times a word, so that small errors have time to grow.
"""

from __future__ import annotations

import random

import numpy as np
import torch
from torch import nn

from .base import Task
from .packages import folder, require

SAMPLES, CALIBRATION, BATCH = 4000, 500, 250  # words
PAD, START, STOP = 0, 2, 3  # phonemes
END, FIRST_LETTER = 2, 3  # graphemes
STEPS = 20  # phonemes at most
NAMES = """AA0 AA1 AA2 AE0 AE1 AE2 AH0 AH1 AH2 AO0 AO1 AO2 AW0 AW1 AW2 AY0 AY1 AY2 B CH D DH EH0 EH1 EH2 ER0 ER1 ER2
EY0 EY1 EY2 F G HH IH0 IH1 IH2 IY0 IY1 IY2 JH K L M N NG OW0 OW1 OW2 OY0 OY1 OY2 P R S SH T TH UH0 UH1 UH2 UW UW0 UW1
UW2 V W Y Z ZH"""
PHONEMES = NAMES.split()


class GRU(nn.Module):
    """One step of a gated recurrent unit whose two products are Linear layers, so that they can be quantized."""

    def __init__(self, inputs: int, hidden: int):
        super().__init__()
        self.input, self.recurrent = nn.Linear(inputs, 3 * hidden), nn.Linear(hidden, 3 * hidden)

    def forward(self, x, h):
        (xr, xz, xn), (hr, hz, hn) = self.input(x).chunk(3, -1), self.recurrent(h).chunk(3, -1)
        z = torch.sigmoid(xz + hz)
        return (1 - z) * torch.tanh(xn + torch.sigmoid(xr + hr) * hn) + z * h


class G2P(nn.Module):
    """(B, L) graphemes, 0 after the end -> (B, STEPS) phonemes, the likeliest at each step."""

    def __init__(self, letters: int = 29, phonemes: int = 74, dim: int = 256, hidden: int = 256):
        super().__init__()
        self.letters, self.phonemes = nn.Embedding(letters, dim), nn.Embedding(phonemes, dim)
        self.encoder, self.decoder = GRU(dim, hidden), GRU(dim, hidden)
        self.head = nn.Linear(hidden, phonemes)

    def forward(self, letters):
        h = self.letters.weight.new_zeros(len(letters), self.head.in_features)
        for x, real in zip(self.letters(letters).unbind(1), (letters != 0).unbind(1), strict=True):
            h = torch.where(real[:, None], self.encoder(x, h), h)
        last, out = torch.full((len(letters),), START), []
        for _ in range(STEPS):
            h = self.decoder(self.phonemes(last), h)
            last = self.head(h).argmax(-1)
            out.append(last)
        return torch.stack(out, 1)


def load(samples: int | None = None) -> Task:
    """samples: words."""
    require("g2p", "g2p_en", "cmudict")
    model = float_model()
    words = dictionary()
    names = random.Random(0).sample(sorted(words), CALIBRATION + (samples or SAMPLES))
    tests = names[CALIBRATION:]
    batches = [encoded(tests[i : i + BATCH]) for i in range(0, len(tests), BATCH)]

    def evaluate(quantized: nn.Module) -> dict[str, float]:
        spelled = [decoded(row) for batch in batches for row in predicted(quantized, batch)]
        right = sum(said in words[name] for said, name in zip(spelled, tests, strict=True))
        return {"word_accuracy": right / len(tests)}

    about = f"{len(tests)} words of cmudict, any of their pronunciations; calibrated on {CALIBRATION} others"
    calibration = [encoded(names[i : i + BATCH]) for i in range(0, CALIBRATION, BATCH)]
    return Task("g2p", model, calibration, evaluate, "word_accuracy", True, about)


def float_model() -> nn.Module:
    arrays = np.load(folder("g2p_en") / "checkpoint20.npz")
    vectors, letters, phonemes = arrays["enc_emb"].shape[1], len(arrays["enc_emb"]), len(arrays["dec_emb"])
    model = G2P(letters, phonemes, vectors, arrays["enc_w_hh"].shape[1])
    state = {"letters.weight": "enc_emb", "phonemes.weight": "dec_emb", "head.weight": "fc_w", "head.bias": "fc_b"}
    for half, prefix in (("encoder", "enc"), ("decoder", "dec")):
        for layer, suffix in (("input", "ih"), ("recurrent", "hh")):
            state |= {f"{half}.{layer}.weight": f"{prefix}_w_{suffix}", f"{half}.{layer}.bias": f"{prefix}_b_{suffix}"}
    model.load_state_dict({name: torch.from_numpy(arrays[key].astype(np.float32)) for name, key in state.items()})
    return model.eval()


def dictionary() -> dict[str, set[tuple[str, ...]]]:
    """Words of the letters a to z -> their pronunciations."""
    words: dict[str, set[tuple[str, ...]]] = {}
    path = folder("cmudict") / "data" / "cmudict.dict"
    for line in path.read_text(encoding="utf-8").splitlines():
        name, *sounds = line.partition("#")[0].split()
        name = name.partition("(")[0]  # "(2)" and so on: another pronunciation
        if name.isascii() and name.isalpha() and name.islower():
            words.setdefault(name, set()).add(tuple(sounds))
    return words


def encoded(names: list[str]) -> torch.Tensor:
    """(B, longest + 1) graphemes; 0 after the end."""
    rows = [torch.tensor([ord(letter) - ord("a") + FIRST_LETTER for letter in name] + [END]) for name in names]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def decoded(phonemes: list[int]) -> tuple[str, ...]:
    """The phonemes before the first STOP."""
    end = phonemes.index(STOP) if STOP in phonemes else len(phonemes)
    return tuple(PHONEMES[i - STOP - 1] if i > STOP else "" for i in phonemes[:end])


@torch.inference_mode()
def predicted(model: nn.Module, batch: torch.Tensor) -> list[list[int]]:
    return model(batch).tolist()
