"""Hardware: emits designs from a plan, simulates them, and reads synthesis reports."""

from .mac import Mac, Pair, mac

__all__ = ["Mac", "Pair", "mac"]
