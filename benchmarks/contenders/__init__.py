"""Everything that takes part in a comparison: one file a library, each of them optional except torch and ours."""

from __future__ import annotations

from ..cases import Options
from . import ours, torch_peers
from .base import Contender, Skipped

__all__ = ["BASELINE", "Contender", "Skipped", "all_peers", "everyone", "ours"]

PEER_MODULES = [torch_peers]
BASELINE = "torch float32"


def everyone(options: Options) -> list[Contender]:
    """The peers and the formats of ours that the options choose."""
    return [*all_peers(options.peers), *ours.contenders(options.chosen_formats)]


def all_peers(wanted: list[str] | None) -> list[Contender]:
    """The peers whose name contains one of `wanted` (None: all); torch float32 is always among them."""
    peers = [peer for module in PEER_MODULES for peer in module.contenders()]
    if wanted is None:
        return peers
    return [p for p in peers if p.name == BASELINE or any(word.lower() in p.name.lower() for word in wanted)]
