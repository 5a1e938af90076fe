"""The cases that `make gpu` tests: each takes the route that it is listed under, by the code that chooses on a GPU."""

import pytest

import minifloat as mf
from gpu_cases import ROUTES, STEADY
from minifloat.ops.records import plan_record

CASES = {route: [*cases, *(case for name, case in STEADY if name == route)] for route, cases in ROUTES.items()}


@pytest.mark.parametrize("route", ROUTES)
def test_cases_take_their_route(shim, route):
    for case in CASES[route]:
        activation = None if case.activation is None else mf.QuantSpec.parse(case.activation)
        plan = plan_record(mf.QuantSpec.parse(case.weight), activation, (case.n, case.k), 1.0)
        assert shim.unsupported(plan) == ""
        assert shim.route(plan, case.m, case.dtype, 90, case.prefer) == route.replace(".", " "), str(case)


def test_every_kind_of_kernel_is_repeated():
    """multiply aside: it is torch's product."""
    assert {name.split(".")[0] for name, _ in STEADY} == {name.split(".")[0] for name in ROUTES} - {"multiply"}
    assert {name.split(".")[1] for name, _ in STEADY} == {name.split(".")[1] for name in ROUTES} - {"bfloat16"}


def test_ids_are_unique():
    """A group of `make gpu` is what stands before the first hyphen of a test's id."""
    for route, cases in ROUTES.items():
        assert "-" not in route and len({str(case) for case in cases}) == len(cases)
