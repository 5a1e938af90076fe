"""Every route of the CUDA kernels on a GPU: the emulator's bits, or its bound. `make gpu` runs each by itself."""

import pytest
import torch

import minifloat as mf
from gpu_cases import ROUTES, check
from minifloat.ops import cuda
from minifloat.ops.records import plan_record

pytestmark = pytest.mark.skipif(
    not cuda.state().startswith("available"), reason=f"the CUDA backend did not run: {cuda.state()}"
)


@pytest.mark.parametrize(
    ("route", "case"),
    [pytest.param(route, case, id=f"{route}-{case}") for route, cases in ROUTES.items() for case in cases],
)
def test_route(route, case):
    if route.startswith("warpgroup") and torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("linear_warpgroup is for sm_90a only")
    activation = None if case.activation is None else mf.QuantSpec.parse(case.activation)
    plan = plan_record(mf.QuantSpec.parse(case.weight), activation, (case.n, case.k), 1.0)
    with cuda.preferred(case.prefer):
        assert cuda.route(plan, case.m, case.dtype) == route.replace(".", " ")
    check(case)
