"""Post-training quantization: mf.calibrate applies a recipe of steps, one file a method."""

import importlib
import pkgutil

from .calibrate import calibrate
from .recipe import STEPS, Recipe, Step, register
from .run import Run
from .scales import ScaleRule, Scales

for _module in pkgutil.iter_modules(__path__):  # a new file with a step needs no entry here
    importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["STEPS", "Recipe", "Run", "ScaleRule", "Scales", "Step", "calibrate", "register"]
