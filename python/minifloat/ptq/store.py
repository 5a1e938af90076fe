"""What an interrupted run leaves behind: a folder with one file for each finished layer and step."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import uuid
import zlib
from pathlib import Path

import torch

INDEX = "run.json"


class Store:
    """A folder that belongs to one run: its recipe, specs, model and data.

    Files are pickles: continue only runs whose folder nobody else could write to.

    Raises:
        ValueError: the folder holds another run, or no run.
    """

    def __init__(self, folder: str | os.PathLike, identity: dict):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        index = self.folder / INDEX
        if index.exists():
            self._check(index, identity)
        elif any(self.folder.iterdir()):
            raise ValueError(f"calibrate: {self.folder} is not empty and holds no {INDEX}: give a folder of its own")
        else:
            self._write(index, json.dumps(identity, indent=1).encode())

    def _check(self, index: Path, identity: dict) -> None:
        try:
            found = json.loads(index.read_text())
        except ValueError as error:
            raise ValueError(f"calibrate: {index} is damaged ({error}): delete the folder to start again") from error
        for key, value in identity.items():
            if found.get(key) != value:
                raise ValueError(
                    f"calibrate: {self.folder} holds another run: its {key} is {found.get(key)!r}, not {value!r}; "
                    "give another folder, or delete this one"
                )

    def save(self, step: int, key: str, value) -> None:
        """Keep `value` as what step number `step` made of `key`, whole or not at all."""
        content = pickle.dumps((step, key, value))
        self._write(self._path(step, key), zlib.crc32(content).to_bytes(4, "little") + content)

    def load(self, step: int, key: str):
        """What was saved, or None.

        Raises:
            ValueError: the file is damaged.
        """
        path = self._path(step, key)
        if not path.exists():
            return None
        content = path.read_bytes()
        if len(content) < 4 or zlib.crc32(content[4:]).to_bytes(4, "little") != content[:4]:
            raise ValueError(f"calibrate: {path} is damaged: delete it to compute it again")
        return pickle.loads(content[4:])[2]

    def _path(self, step: int, key: str) -> Path:
        return self.folder / f"{step:02d}-{hashlib.sha1(key.encode()).hexdigest()[:16]}.pickle"

    def _write(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def crc_of(tensors) -> str:
    """CRC-32 of the dtypes, shapes and bytes of tensors; other values by their repr."""
    crc = 0
    for tensor in tensors:
        if isinstance(tensor, torch.Tensor):
            crc = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode(), crc)
            if not tensor.is_meta:
                crc = zlib.crc32(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy(), crc)
        else:
            crc = zlib.crc32(repr(tensor).encode(), crc)
    return f"{crc:08x}"
