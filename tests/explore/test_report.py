"""The page: self-contained, its records those of the stores, and drawn by a real browser where there is one."""

import json
import re
import shutil
import subprocess

import pytest

pytest.importorskip("plotly", reason="the report needs plotly: pip install 'minifloat[explore]'")

from minifloat.explore.cells import Cell
from minifloat.explore.report.page import page
from minifloat.explore.report.rows import rows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def result(value, luts, higher=True):
    return {
        "metrics": {"m": value, "other": None},
        "metric": "m",
        "higher_is_better": higher,
        "about": "<b>&</b> data",
        "bits_per_weight": 4.5,
        "luts_per_mac": luts,
        "model_bytes": 1000,
        "layer_time_ms": 2.0,
    }


FOUND = {
    Cell("t"): result(1.0, None),
    Cell("t", "int4-row", "int4-row"): result(0.5, 28.0),
    Cell("t", "e2m1-row", "e2m1-row", "gptq"): result(0.75, 27.0),
    Cell("t", "e3m0-row", "e3m0-row"): result(None, 32.0),
    Cell("u", "nf4-g64", None): result(20.0, None, higher=False),
}


def records(html: str) -> list[dict]:
    return json.loads(re.search(r'<script id="rows" type="application/json">(.*?)</script>', html, re.DOTALL)[1])


def test_records_are_the_results():
    found = rows([FOUND, FOUND])
    assert len(found) == len(FOUND)
    assert [row["family"] for row in found] == ["float32", "int", "float", "float", "codebook"]
    assert [row["bits"] for row in found] == [32, 4, 4, 4, 4]
    assert [row["value"] for row in found] == [1.0, 0.5, 0.75, None, 20.0]
    assert found[2] | {"weight": "e2m1-row", "method": "gptq", "luts": 27.0, "bytes": 1000, "time_ms": 2.0} == found[2]


def test_the_page_needs_nothing_else():
    html = page(rows([FOUND]))
    assert records(html) == rows([FOUND])
    own = re.sub(r"<script>.*?</script>", "", html, flags=re.DOTALL)  # all but plotly and our script
    assert "<b>&" not in own
    assert not re.search(r"(src|href)=", own) and "@import" not in own and "url(" not in own
    assert 'name="viewport"' in own


def test_the_front_is_what_nothing_beats():
    from minifloat.explore.report.figure import front

    def row(luts, value, higher=True):
        return {"luts": luts, "value": value, "higher_is_better": higher}

    points = [(30, 0.9), (20, 0.7), (20, 0.8), (40, 0.9), (50, 0.95), (60, 0.85)]
    kept = [(r["luts"], r["value"]) for r in front([row(*p) for p in points])]
    assert kept == [(20, 0.8), (30, 0.9), (50, 0.95)]
    kept = [(r["luts"], r["value"]) for r in front([row(*p, higher=False) for p in points])]
    assert kept == [(20, 0.7)]
    assert front([]) == []


def test_the_picture(tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need matplotlib")
    from minifloat.explore.report.figure import write_png

    write_png(tmp_path / "map.png", rows([FOUND]))
    assert (tmp_path / "map.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    for only, metric in (([], None), (rows([FOUND]), "other"), (rows([FOUND]), "perplexity")):
        with pytest.raises(ValueError, match="no result has a cost in LUTs"):
            write_png(tmp_path / "none.png", only, metric)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here to draw the page with")
def test_a_browser_draws_the_page(tmp_path):
    path = tmp_path / "report.html"
    path.write_text(page(rows([FOUND])), encoding="utf-8")
    command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", "--dump-dom"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", path.as_uri()]
    dom = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True).stdout
    body = re.search(r'<tbody id="body">(.*?)</tbody>', dom, re.DOTALL)[1]
    order = re.findall(r"<tr.*?<td[^>]*>(.*?)</td>", body)
    assert order == ["float32", "e2m1-row", "int4-row", "e3m0-row"]  # the best first, what is not a number last
    points = re.search(r'id="plot-luts".*?</figure>', dom, re.DOTALL)[0].count('class="point"')
    assert points == 2  # one int, one float; the one without a value is in the table only
    assert "&lt;b&gt;&amp;&lt;/b&gt; data." in dom
