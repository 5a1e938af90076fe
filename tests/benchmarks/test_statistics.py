"""Timing helpers on a made-up clock: no time is asserted, only what is done with times."""

import pytest
from benchmarks.timing import BLOCK_US, Work, calibrate, measure, quantile, statistics, touch


class Clock:
    """Shows the time that made-up work took."""

    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def work(self, took_us, calls=1, log=None, name=""):
        def run():
            self.now_s += took_us * 1e-6
            if log is not None:
                log.append(name)

        return Work(run, calls)


@pytest.mark.parametrize(("q", "expected"), [(0, 1), (0.1, 1.4), (0.5, 3), (0.9, 4.6), (1, 5)])
def test_quantile_interpolates_between_order_statistics(q, expected):
    assert quantile([5.0, 1.0, 4.0, 2.0, 3.0], q) == pytest.approx(expected)


def test_quantile_of_one_sample_is_that_sample():
    assert quantile([7.0], 0.9) == 7.0


def test_statistics_of_a_known_sample():
    samples = [float(i) for i in range(11, 0, -1)]
    assert statistics(samples) == {"best_us": 1.0, "p10_us": 2.0, "median_us": 6.0, "p90_us": 10.0, "samples": 11}


def test_statistics_keep_four_digits():
    assert statistics([123.456])["best_us"] == 123.5


@pytest.mark.parametrize(("took_us", "repeats"), [(BLOCK_US / 8, 8), (BLOCK_US * 0.4, 3), (BLOCK_US * 10, 1)])
def test_a_block_lasts_long_enough_and_not_longer(took_us, repeats):
    clock = Clock()
    assert calibrate(clock.work(took_us), clock) == repeats


@pytest.mark.parametrize(("copies", "calls", "runs"), [(7, 1, 7), (7, 3, 3), (6, 3, 2)])
def test_every_copy_is_touched_once(copies, calls, runs):
    log = []
    touch(Clock().work(1.0, calls, log), copies)
    assert len(log) == runs


def test_samples_are_times_per_call():
    clock = Clock()
    works = {"one": clock.work(100.0), "several": clock.work(600.0, calls=3)}
    samples = measure(works, seconds=9, min_rounds=4, max_rounds=4, clock=clock, sleep=lambda s: None)
    assert samples == {"one": [pytest.approx(100.0)] * 4, "several": [pytest.approx(200.0)] * 4}


def test_rounds_interleave_in_orders_of_their_own():
    clock, log = Clock(), []
    works = {name: clock.work(BLOCK_US * 2, log=log, name=name) for name in "abcdef"}
    measure(works, seconds=99, min_rounds=20, max_rounds=20, clock=clock, sleep=lambda s: None)
    rounds = ["".join(log[i : i + 12 : 2]) for i in range(len(log) - 240, len(log), 12)]
    assert log[-240::2] == log[-239::2]  # an untimed call, then the timed one
    assert {"".join(sorted(order)) for order in rounds} == {"abcdef"}
    neighbours = {order[i : i + 2] for order in rounds for i in range(5)}
    assert len(neighbours) > 25  # of 30


@pytest.mark.parametrize(("seconds", "rounds"), [(7.0, 4), (1.8, 3), (0.6, 2), (0.0, 2), (100, 9)])
def test_rounds_end_when_the_time_is_up_and_below_the_minimum_only_after_five_times_as_long(seconds, rounds):
    clock = Clock()
    samples = measure({"slow": clock.work(1e6)}, seconds, 3, 9, clock=clock, sleep=lambda s: None)
    assert len(samples["slow"]) == rounds


def test_threads_that_spin_long_are_waited_for_once():
    clock, slept = Clock(), []
    works = {"a": clock.work(2000.0), "b": clock.work(2000.0), "c": clock.work(2000.0)}
    works["a"].spin_s = works["b"].spin_s = 0.035
    measure(works, seconds=9, min_rounds=2, max_rounds=2, clock=clock, sleep=slept.append)
    assert slept == [0.001, 0.001, 0.035, *[0.001] * 3, 0.035, 0.001, 0.001]
