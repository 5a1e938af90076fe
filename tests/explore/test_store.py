"""The store: what is written is read back, a torn last line is forgotten, any other damage is an error."""

import json

import pytest

from minifloat.explore.cells import Cell
from minifloat.explore.store import Store, StoreError, read

CELLS = [Cell("t", f"int{bits}-row") for bits in range(3, 7)]
RESULT = {"metrics": {"accuracy": 0.1, "kl": None}, "metric": "accuracy"}


@pytest.fixture
def path(tmp_path):
    """A store with two results."""
    path = tmp_path / "folder" / "results.jsonl"
    with Store(path) as store:
        for cell in CELLS[:2]:
            store.append(cell, RESULT)
    return path


def test_reads_what_was_written(path):
    assert read(path) == {cell: RESULT for cell in CELLS[:2]}
    with Store(path) as store:
        assert store.results == read(path)
        store.append(CELLS[2], RESULT)
    assert list(read(path)) == CELLS[:3]


def test_every_torn_last_line_is_cut_off(path):
    whole = path.read_bytes()
    last = whole.splitlines(keepends=True)[-1]
    for length in range(len(last)):
        path.write_bytes(whole[: len(whole) - len(last) + length])
        assert list(read(path)) == CELLS[:1]
        with Store(path) as store:
            assert list(store.results) == CELLS[:1]
            store.append(CELLS[1], RESULT)
        assert path.read_bytes() == whole


def damaged(entry: dict, **changes) -> bytes:
    return json.dumps(entry | changes).encode()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda entry: b"", "line 1 is not a result"),
        (lambda entry: b'{"key": "', "line 1 is not a result"),
        (lambda entry: b"\xff\xfe", "line 1 is not a result"),
        (lambda entry: b"[]", "line 1 is not a result"),
        (lambda entry: damaged(entry, key="0" * 16), "line 1: the key is 0000000000000000"),
        (lambda entry: damaged(entry, cell=entry["cell"] | {"samples": 7}), "but its cell has"),
        (lambda entry: damaged(entry, cell=entry["cell"] | {"weight": "int9-row"}), "int9"),
        (lambda entry: damaged(entry, cell={}), "line 1 is not a result"),
        (lambda entry: damaged(entry, result={}), "metrics"),
        (lambda entry: damaged(entry, result={"metrics": {"accuracy": "high"}}), "numbers or null"),
    ],
)
def test_damage_is_an_error_that_names_the_line_and_changes_nothing(path, damage, message):
    first, second = path.read_bytes().splitlines()
    path.write_bytes(damage(json.loads(first)) + b"\n" + second + b"\n")
    before = path.read_bytes()
    for opened in (read, Store):
        with pytest.raises(StoreError, match=message):
            opened(path)
    assert path.read_bytes() == before


def test_a_cell_has_one_result(path):
    with Store(path) as store, pytest.raises(StoreError, match="already holds"):
        store.append(CELLS[0], RESULT)
    path.write_bytes(path.read_bytes() * 2)
    with pytest.raises(StoreError, match="line 3: a second result"):
        read(path)


def test_one_writer_at_a_time(path):
    with Store(path), pytest.raises(StoreError, match="being written by another sweep"):
        Store(path)
    with Store(path):  # the refused one left no lock
        pass


def test_no_number_that_json_lacks(path):
    with Store(path) as store:
        with pytest.raises(ValueError):
            store.append(CELLS[2], {"metrics": {"accuracy": float("nan")}})
        assert CELLS[2] not in store.results
    assert list(read(path)) == CELLS[:2]


def test_missing_file(tmp_path):
    with pytest.raises(StoreError, match="does not exist"):
        read(tmp_path / "none.jsonl")
