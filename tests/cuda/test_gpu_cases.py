"""The cases that `make gpu` tests: each takes the route that it is listed under, by the code that chooses on a GPU."""

import pytest

import minifloat as mf
from gpu_cases import ROUTES
from minifloat.ops.records import plan_record


@pytest.mark.parametrize("route", ROUTES)
def test_cases_take_their_route(shim, route):
    for case in ROUTES[route]:
        activation = None if case.activation is None else mf.QuantSpec.parse(case.activation)
        plan = plan_record(mf.QuantSpec.parse(case.weight), activation, (case.n, case.k), 1.0)
        assert shim.unsupported(plan) == ""
        assert shim.route(plan, case.m, case.dtype, 90, case.prefer) == route.replace(".", " "), str(case)


def test_ids_are_unique():
    """A group of `make gpu` is what stands before the first hyphen of a test's id."""
    for route, cases in ROUTES.items():
        assert "-" not in route and len({str(case) for case in cases}) == len(cases)
