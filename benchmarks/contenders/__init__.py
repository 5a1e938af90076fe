"""Everything that takes part in a comparison: one file a library, each of them optional except torch and ours."""

from __future__ import annotations

from ..cases import Options
from . import bits_and_bytes, ggml, onnx_runtime, ours, reading, torch_peers
from .base import Contender, Skipped

__all__ = ["BASELINE", "Contender", "Skipped", "all_peers", "everyone", "ours"]

PEER_MODULES = [torch_peers, onnx_runtime, ggml, bits_and_bytes]
BASELINE = "torch float32"


def everyone(options: Options) -> list[Contender]:
    """The peers, the formats of ours that the options choose, and what only reads weights of their widths."""
    formats = options.chosen_formats
    return [*all_peers(options.peers), *ours.contenders(formats), *reading.contenders(formats)]


def all_peers(wanted: list[str] | None) -> list[Contender]:
    """The peers whose name contains one of `wanted` (None: all); torch float32 is always among them."""
    peers = [peer for module in PEER_MODULES for peer in module.contenders()]
    if wanted is None:
        return peers
    return [p for p in peers if p.name == BASELINE or any(word.lower() in p.name.lower() for word in wanted)]
