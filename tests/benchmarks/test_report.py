"""Tables, plots and limits from made-up results."""

import pytest
from benchmarks.cases import Options, parse_shape, split_format
from benchmarks.ceilings import better, limit_us, peak
from benchmarks.report import best_peer, cell_lines, markdown, ratio_entry, rows, write_report

from benchmarks import results_file

CEILINGS = {
    "threads": 2,
    "dram_1_streams_gbs": 30.0,
    "dram_8_streams_gbs": 40.0,
    "float32_fma_avx2_gops": 200.0,
    "int8_maddubs_add_avx2_gops": 600.0,
    "int8_maddubs_widen_avx2_gops": 400.0,
}


def contender(us, width, limit=None):
    stats = {
        "library": "made up",
        "arithmetic": "int8",
        "width": width,
        "bits": width + 0.25,
        "limit_us": limit,
        "error": 0.1,
    }
    return stats | {"best_us": us, "p10_us": us, "median_us": 1.5 * us, "p90_us": 2.0 * us, "samples": 5}


def cell(m=1):
    contenders = {
        "torch float32": contender(2000.0, 32, 1600.0),
        "torch bfloat16": contender(50.0, 16),
        "four slow": contender(500.0, 4, 200.0),
        "four fast": contender(400.0, 4, 200.0),
        "eight": contender(250.0, 8),
        "two": contender(800.0, 2),
        "ours int4-row": contender(200.0, 4, 150.0),
        "ours binary-row": contender(100.0, 1, 50.0),
        "ours int3-row": contender(100.0, 3, 80.0),
    }
    return {"n": 64, "k": 128, "m": m, "threads": 2, "contenders": contenders}


def results():
    machine = {
        "cpu": "Made Up 9000",
        "flags": ["avx2"],
        "isa": "avx2",
        "peer_isa": "native",
        "torch_isa": "AVX2",
        "commit": "abc1234",
    }
    machine |= {"date": "2026-01-02T03:04:05", "versions": {"torch": "2.0"}, "load_at_start": 0.5}
    skipped = dict.fromkeys(("five", "six"), "not installed at 64x128")
    return {"machine": machine, "ceilings": {"2": CEILINGS}, "skipped": skipped, "cells": [cell(1), cell(16)]}


def test_ratios_are_to_float32_of_the_same_cell():
    row = rows(cell())[0]
    assert (row["name"], row["ratio"], row["limit"]) == ("int4-row", 10.0, pytest.approx(2000 / 150))
    assert row["fraction"] == 0.75
    assert row["spread"] == pytest.approx((2.0 - 1.0) / 1.5)
    assert row["same_width"] == ("four fast", 5.0)
    assert row["any_width"] == ("eight", 8.0)


def test_one_and_two_bits_are_compared_with_each_other():
    assert rows(cell())[1]["same_width"] == ("two", 2.5)


def test_a_width_that_no_peer_has():
    assert rows(cell())[2]["same_width"] is None


def test_best_peer_never_counts_ours():
    assert best_peer(cell(), range(1, 9)) == ("eight", 250.0)


def test_the_statistic_can_be_chosen():
    assert rows(cell(), "median_us")[0]["us"] == 300.0


def test_terminal_lines_are_sorted_by_time():
    names = [line[:15].strip() for line in cell_lines(cell())[3:]]
    assert names[0] == "torch bfloat16" and names[-1] == "torch float32"


def test_markdown_names_machine_ratios_limits_and_skips():
    text = markdown(results())
    assert "Made Up 9000" in text and "commit abc1234" in text
    assert "| int4-row | 4.25 | **10.0** / 5.0 / 13.3 | **10.0** / 5.0 / 13.3 |" in text
    assert "| int3-row | 3.25 | **20.0** / none / 25.0 |" in text
    assert "| 4 | 5.00 four fast | 5.00 four fast |" in text
    assert "| int8 maddubs add avx2, Gop/s | 600 |" in text
    assert "- not installed at 64x128: five, six" in text


def test_layers_stand_beside_the_reading_of_their_weights():
    read = results()
    read["cells"][0]["contenders"]["reading 4 bits"] = contender(85.0, 0) | {"bits": 8.5}
    text = markdown(read)
    # int4-row has half the bits of what was read: 42.5 us of 200, 63.75 of the median's 300
    assert "| int4-row | 42 | 200 | 21% | 47.1 | 64 | 300 | 21% | 47.1 |" in text
    assert "| int3-row | 1" not in text and "| reading 4 bits |" not in text
    assert "do nothing else" not in markdown(results())
    assert best_peer(read["cells"][0], range(9)) == ("eight", 250.0)


def test_no_limit_is_below_what_reading_reached():
    read = cell()
    # 8 KiB at 64 GB/s, where the ceiling says 40
    read["contenders"]["reading 8 bits"] = contender(0.128, 0) | {"bits": 8.0}
    results_file.set_limits(read, CEILINGS, results()["machine"])
    nbytes = 64 * 128 * 4.25 / 8 + 4 * (64 + 128)
    assert read["contenders"]["ours int4-row"]["limit_us"] == pytest.approx(nbytes / 64e3, rel=1e-3)


def test_a_format_that_is_behind_is_not_bold():
    slow = cell()
    slow["contenders"]["ours int4-row"]["best_us"] = 800.0
    assert ratio_entry(rows(slow)[0]) == "2.5 / 5.0 / 13.3"


def test_files_are_written(tmp_path):
    path = tmp_path / "made-up.json"
    results_file.write(results(), path)
    written = write_report(path)
    assert [p.name for p in written] == ["made-up.md", "made-up-M1.png", "made-up-M16.png"]
    assert all(p.stat().st_size > 0 for p in written)


def test_result_files_hold_everything_but_the_limits(tmp_path):
    path = tmp_path / "made-up.json"
    results_file.write(results(), path)
    expected = results()
    for each in expected["cells"]:
        results_file.set_limits(each, CEILINGS, expected["machine"])
    assert results_file.read(path) == expected
    contenders = len(cell()["contenders"])
    assert len(path.read_text().splitlines()) < 60 + 4 * contenders


def test_a_small_batch_is_limited_by_memory():
    # 1000 x 1000 at 4 bits and M=1: 0.5 MB of weights and 8 kB of x and y at 40 GB/s
    assert limit_us(CEILINGS, (1000, 1000), 1, 500_000, "int8") == pytest.approx(508_000 / 40e9 * 1e6)


def test_a_large_batch_is_limited_by_instructions():
    assert limit_us(CEILINGS, (1000, 1000), 300, 500_000, "int8") == pytest.approx(2 * 300 * 1e6 / 600e9 * 1e6)
    assert limit_us(CEILINGS, (1000, 1000), 300, 500_000, "float32") == pytest.approx(2 * 300 * 1e6 / 200e9 * 1e6)


def test_instructions_that_the_isa_lacks_do_not_raise_the_limit():
    wide = CEILINGS | {"int8_dpbusd_avx512_gops": 1900.0, "int8_maddubs_add_avx512_gops": 1200.0}
    wide |= {"int8_dpbusd_avxvnni_gops": 900.0}
    rates = [peak(wide, "int8", isa) for isa in ("avx2", "avxvnni", "avx512", "avx512_vnni", "native")]
    assert rates == [600.0, 900.0, 1200.0, 1900.0, 1900.0]


def test_of_two_measurements_the_better_one_counts():
    assert better({"dram": 40.0, "fma": 200.0}, {"dram": 45.0}) == {"dram": 45.0, "fma": 200.0}
    assert better({"dram": 40.0}, {"dram": 35.0}) == {"dram": 40.0}


def test_other_arithmetic_has_no_measured_limit():
    assert limit_us(CEILINGS, (8, 8), 1, 8, "other") is None


def test_options_narrow_the_subset():
    assert parse_shape("1536,384") == parse_shape("1536x384") == (1536, 384)
    assert Options(batches=[4]).cells[0] == ((4096, 4096), [4])
    assert Options(shapes=[(8, 8)]).cells == [((8, 8), [1, 4, 16, 64, 256])]
    assert split_format("mxfp4") == ("mxfp4", "int8-row")
    assert split_format("nf4:") == ("nf4", None)
    assert split_format("int2-row:int2-row") == ("int2-row", "int2-row")
