"""Recipes: ordered lists of steps, written as text such as "smoothquant(alpha=0.5) + gptq + bias_correction"."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from .run import Run

CHANGES = ("layers", "floats", "structure")


@dataclass(frozen=True)
class Step(ABC):
    """One method with its settings. Subclass it as a frozen dataclass, give it a name and decorate it with @register.

    Attributes:
        name: what recipes call it.
        changes: what `apply` touches, so that an interrupted run knows what to store.
            "layers": how layers are quantized (specs, scales, quantized weights); stored layer by layer.
            "floats": the values of float weights, biases and norms; stored once the step is finished.
            "structure": modules are replaced; applied again, with the same outcome, when a run continues.
    """

    name: ClassVar[str] = ""
    changes: ClassVar[str] = "layers"

    @abstractmethod
    def apply(self, run: Run) -> None:
        """Change the run's layers or its model."""

    def __str__(self) -> str:
        """The name, and the settings that differ from the defaults: "gptq(act_order=True)"."""
        given = [f for f in fields(self) if getattr(self, f.name) != _default(f)]
        arguments = ", ".join(f"{f.name}={_text(getattr(self, f.name))}" for f in given)
        return f"{self.name}({arguments})" if arguments else self.name


STEPS: dict[str, type[Step]] = {}


def register(step: type[Step]) -> type[Step]:
    """Make a step known by its name. Modules of minifloat.ptq are found by themselves; import others first."""
    if not step.name.isidentifier() or step.changes not in CHANGES or not dataclasses.is_dataclass(step):
        raise ValueError(
            f"{step.__name__}: a step is a dataclass with a name and `changes` one of {', '.join(CHANGES)}"
        )
    if STEPS.get(step.name, step).__qualname__ != step.__qualname__:
        raise ValueError(f"the name {step.name!r} is taken by {STEPS[step.name].__qualname__}")
    STEPS[step.name] = step
    return step


@dataclass(frozen=True)
class Recipe:
    """Steps in the order in which they are applied. The empty recipe is round-to-nearest.

    str(recipe) and Recipe.parse are inverses, and so are to_json and from_json. Recipes add up: a + b.
    """

    steps: tuple[Step, ...] = ()

    @staticmethod
    def parse(recipe: str | Step | Recipe | Iterable) -> Recipe:
        """A recipe from its text, a step, or several of these.

        Text: steps joined by '+', each a name with optional settings as in a Python call; quotes around plain words
        may be left out. "" and "nearest" are the empty recipe.
        Raises:
            ValueError: the text cannot be read, or a step or setting is unknown.
        """
        if isinstance(recipe, Recipe):
            return recipe
        if isinstance(recipe, Step):
            return Recipe((recipe,))
        if isinstance(recipe, str):
            return Recipe(tuple(_read_text(recipe)))
        if isinstance(recipe, Iterable):
            return Recipe(tuple(step for part in recipe for step in Recipe.parse(part).steps))
        raise ValueError(f"a recipe is text, a step or a list of steps, got {type(recipe).__name__}")

    def to_json(self) -> str:
        """A JSON list with one object a step: its name under "step", and every setting."""
        return json.dumps([{"step": step.name} | dataclasses.asdict(step) for step in self.steps])

    @staticmethod
    def from_json(text: str) -> Recipe:
        """The inverse of to_json.

        Raises:
            ValueError: no JSON, not such a list, or an unknown step or setting.
        """
        try:
            entries = json.loads(text)
            settings = [dict(entry) for entry in entries]
            names = [entry.pop("step") for entry in settings]
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f'recipe: expected JSON such as [{{"step": "gptq"}}], got {text[:80]!r}') from error
        return Recipe(tuple(make_step(name, entry) for name, entry in zip(names, settings, strict=True)))

    def __str__(self) -> str:
        return " + ".join(map(str, self.steps)) or "nearest"

    def __add__(self, other) -> Recipe:
        return Recipe(self.steps + Recipe.parse(other).steps)


def make_step(name: str, settings: dict) -> Step:
    """The step of this name with these settings; lists become tuples.

    Raises:
        ValueError: the step or a setting is unknown, or a value makes no sense.
    """
    if name not in STEPS:
        close = difflib.get_close_matches(str(name), STEPS, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        raise ValueError(f"unknown step {name!r}: {hint}there are {', '.join(sorted(STEPS))}")
    known = {f.name: f for f in fields(STEPS[name])}
    for key, value in settings.items():
        if key not in known:
            raise ValueError(f"step {name!r} has no setting {key!r}; it has {', '.join(known) or 'none'}")
        if value is not None or "None" not in str(known[key].type):
            _check_type(name, key, value, _default(known[key]))
    frozen = {key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    return STEPS[name](**frozen)


def _read_text(text: str) -> list[Step]:
    if text.strip() in ("", "nearest"):
        return []
    try:
        return _read(ast.parse(text.strip(), mode="eval").body)
    except SyntaxError as error:
        raise ValueError(
            f"recipe {text!r} cannot be read: expected 'step(setting=value) + step', {error.msg}"
        ) from error


def _read(node: ast.expr) -> list[Step]:
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _read(node.left) + _read(node.right)
    if isinstance(node, ast.Name):
        return [make_step(node.id, {})]
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.args:
        return [make_step(node.func.id, {keyword.arg: _value(keyword.value) for keyword in node.keywords})]
    raise ValueError(f"recipe: {ast.unparse(node)!r} is no step; write 'step' or 'step(setting=value)'")


def _value(node: ast.expr):
    if isinstance(node, ast.Name):
        return node.id
    try:
        return ast.literal_eval(node)
    except ValueError as error:
        raise ValueError(f"recipe: {ast.unparse(node)!r} is no value; quote text with other characters") from error


def _text(value) -> str:
    plain = isinstance(value, str) and value.isidentifier() and value not in ("True", "False", "None")
    return value if plain else repr(value)


def _default(f: dataclasses.Field):
    return f.default_factory() if f.default_factory is not dataclasses.MISSING else f.default


def _check_type(step: str, key: str, value, default) -> None:
    """A setting keeps the kind of its default: bool, number or text; where the default is None or a tuple, anything."""
    for kind, accepted in ((bool, bool), (int, int), (float, (int, float)), (str, str)):
        if isinstance(default, kind):
            if not isinstance(value, accepted) or (kind is not bool and isinstance(value, bool)):
                raise ValueError(f"step {step!r}: {key} is {value!r}, expected a {kind.__name__} such as {default!r}")
            return
