"""The file: safetensors, with one metadata entry "minifloat" that holds JSON.

    version    1
    layers     name -> {"weight": spec, "activation": spec or null, "shape": [N, K]} of every quantized layer, with
               "class": name of its class where that is not QLinear, and "planes": q where that is BinaryCodedLinear
    codebooks  name -> table of values, of every codebook in those specs
    aliases    name -> name of the stored tensor that it shares memory with
    checksum   CRC-32 of the entries above and of every tensor's name, dtype, shape and bytes

Tensors are named as in the model's state dict.
"""

from __future__ import annotations

import json
import os
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..binary_coding import check_binary, check_planes
from ..formats import Format, QuantSpec
from ..nn.binary_coded_linear import BinaryCodedLinear
from ..nn.canonical import FIELDS, field_names, from_tensors, join
from ..nn.kinds import CLASSES
from ..nn.qlinear import QLinear
from ..nn.qmodule import QModule, check_activation
from ..qtensor import QTensor

VERSION = 1
KEY = "minifloat"


@dataclass(frozen=True)
class StoredLayer:
    """A quantized layer as the metadata describes it.

    shape: (N, K). planes: of a binary-coded weight, stored as (N, planes * K); else 1.
    """

    weight: QuantSpec
    activation: QuantSpec | None
    shape: tuple[int, int]
    made: type[QModule] = QLinear
    planes: int = 1

    @property
    def stored_shape(self) -> tuple[int, int]:
        return self.shape[0], self.planes * self.shape[1]


@dataclass(frozen=True)
class Content:
    """What a file holds.

    layers: the quantized layers by qualified name.
    tensors: what is stored, by name. aliases: further name -> stored name.
    """

    layers: dict[str, StoredLayer] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    def names(self) -> list[str]:
        return [*self.tensors, *self.aliases]

    def __contains__(self, name: str) -> bool:
        return name in self.tensors or name in self.aliases

    def stored_name(self, name: str) -> str:
        return self.aliases.get(name, name)

    def tensor(self, name: str) -> torch.Tensor:
        return self.tensors[self.stored_name(name)]

    def qtensor(self, layer: str) -> QTensor:
        """The weight of a quantized layer.

        Raises:
            ValueError: a tensor is missing, too many, of another shape or dtype than the spec asks for, or holds a code
                that is out of range.
        """
        stored = self.layers[layer]
        expected = field_names(stored.weight)
        for name in FIELDS:
            if name in expected and join(layer, name) not in self:
                raise ValueError(f"tensor {join(layer, name)!r} is missing, which {stored.weight} needs")
            if name not in expected and join(layer, name) in self:
                raise ValueError(f"tensor {join(layer, name)!r} does not belong to {stored.weight}")
        tensors = {name: self.tensor(join(layer, name)) for name in expected}
        return from_tensors(tensors, stored.weight, stored.stored_shape, layer)


def write(path: str, content: Content) -> None:
    """Write the file whole or not at all: until the last step it has another name."""
    header = {"version": VERSION, "layers": {}, "codebooks": _codebooks(content.layers), "aliases": content.aliases}
    for name, layer in content.layers.items():
        activation = None if layer.activation is None else str(layer.activation)
        header["layers"][name] = {"weight": str(layer.weight), "activation": activation, "shape": list(layer.shape)}
        if layer.made is not QLinear:
            header["layers"][name]["class"] = layer.made.__name__
        if layer.made is BinaryCodedLinear:
            header["layers"][name]["planes"] = layer.planes
    header["checksum"] = checksum(header, content.tensors)
    temporary = f"{path}.{uuid.uuid4().hex}.tmp"
    try:
        with open(temporary, "xb"):
            mode = os.stat(path if os.path.exists(path) else temporary).st_mode
        save_file(content.tensors, temporary, {KEY: json.dumps(header, sort_keys=True)})
        os.chmod(temporary, mode)  # safetensors makes files that nobody else can read
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())  # or a power cut could leave the new name with the old zeros
        os.replace(temporary, path)
    except SafetensorError as error:
        raise OSError(f"save: {path} could not be written: {error}") from error
    finally:
        if os.path.exists(temporary):
            os.remove(temporary)


def read(path: str) -> Content:
    """The content of a file: its bytes are as they were written, and the metadata makes sense.

    Raises:
        ValueError: they are not, or do not; the message says what is wrong.
    """
    try:
        with safe_open(path, "pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise ValueError(f"the file is damaged or cut off, or is not a safetensors file ({error})") from error
    if KEY not in metadata:
        raise ValueError(f"the metadata has no entry {KEY!r}: mf.save did not write this file, or it is damaged")
    try:
        header = json.loads(metadata[KEY])
    except ValueError as error:
        raise ValueError(f"the metadata entry {KEY!r} is damaged: it is not JSON ({error})") from error
    version = header.get("version") if isinstance(header, dict) else None
    if version != VERSION:
        raise ValueError(f"format version {version!r} is unknown: this minifloat reads version {VERSION}")
    found = checksum(header, tensors)
    if header.get("checksum") != found:
        raise ValueError(f"the file is damaged: its checksum is {found}, but {header.get('checksum')} was recorded")
    return _parse(header, tensors)


def checksum(header: dict, tensors: dict[str, torch.Tensor]) -> str:
    """CRC-32 of everything but the checksum itself: 5 GB/s, and no flipped bit or torn write escapes it."""
    header = {key: value for key, value in header.items() if key != "checksum"}
    crc = zlib.crc32(json.dumps(header, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        crc = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
        crc = zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy(), crc)
    return f"{crc:08x}"


def _codebooks(layers: dict[str, StoredLayer]) -> dict[str, list[float]]:
    """The tables of all codebooks in use: a reader need not have registered them."""
    specs = [spec for layer in layers.values() for spec in (layer.weight, layer.activation) if spec is not None]
    used = {spec.format for spec in specs if spec.format.kind == "codebook"}
    for codebook in used:
        Format.codebook(codebook.name, codebook.table)  # raises if the name means two tables
    return {codebook.name: list(codebook.table) for codebook in used}


def _parse(header: dict, tensors: dict[str, torch.Tensor]) -> Content:
    with _explained("'codebooks'"):
        for name, table in header["codebooks"].items():
            Format.codebook(name, table)
    aliases = header.get("aliases")
    with _explained("'aliases'"):
        for name, stored in aliases.items():
            if name in tensors or stored not in tensors:
                raise ValueError(
                    f"{name!r} is to share memory with {stored!r}, but the file stores {_which(tensors, name, stored)}"
                )
    layers = {}
    with _explained("'layers'"):
        for name, entry in header["layers"].items():
            with _explained(f"layer {name!r}"):
                n, k = map(_extent, entry["shape"])
                made = CLASSES.get(entry.get("class", "QLinear"))
                if made is None:
                    raise ValueError(f"class {entry['class']!r} is none of {', '.join(CLASSES)}")
                weight, activation = QuantSpec.parse(entry["weight"]), check_activation(entry["activation"], k)
                layers[name] = StoredLayer(weight, activation, (n, k), made, _planes(entry, made, weight, k))
    return Content(layers, tensors, aliases)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn whatever goes wrong with a part of the metadata into one kind of error that names the part."""
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        problem = f"no entry {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"metadata of {what}: {problem}") from error


def _extent(value) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"shape has an extent of {value!r}")
    return value


def _planes(entry: dict, made: type[QModule], weight: QuantSpec, k: int) -> int:
    if made is not BinaryCodedLinear:
        if "planes" in entry:
            raise ValueError(f"planes={entry['planes']!r} does not belong to class {made.__name__!r}")
        return 1
    check_binary(weight, k)
    return check_planes(entry["planes"])


def _which(tensors: dict, name: str, stored: str) -> str:
    return f"{name!r} itself" if name in tensors else f"no {stored!r}"
