import pytest

import minifloat as mf


@pytest.fixture(params=mf.ops.supported_isas())
def isa(request):
    """Runs the test on each instruction set of this CPU; test_registration.py names those it lacks."""
    before = mf.ops.isa()
    mf.ops.select_isa(request.param)
    yield request.param
    mf.ops.select_isa(before)
