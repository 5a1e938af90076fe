"""Every kind of kernel on a GPU, repeated, captured in a CUDA graph and on two streams: the same bits each time."""

from itertools import count

import pytest
import torch

import minifloat as mf
from gpu_cases import STEADY, make
from minifloat.nn.prepared import on_device
from minifloat.ops import cuda
from minifloat.ops.records import plan_record

pytestmark = pytest.mark.skipif(
    not cuda.state().startswith("available"), reason=f"the CUDA backend did not run: {cuda.state()}"
)


@pytest.fixture(params=[pytest.param(found, id=f"{found[0]}-{found[1]}") for found in STEADY])
def steady(request):
    """(x on the GPU, what multiplies such an x); the case takes its route, or its like on a GPU other than sm_90a."""
    route, case = request.param
    q, x, bias, activation = make(case)
    plan = plan_record(q.spec, None if activation is None else mf.QuantSpec.parse(activation), q.shape, 1.0)
    q, bias = on_device(q, torch.device("cuda")), bias.cuda()
    with cuda.preferred(case.prefer):
        if torch.cuda.get_device_capability() == (9, 0):
            assert cuda.route(plan, case.m, case.dtype) == route.replace(".", " ")
        yield x.cuda(), lambda v: mf.linear(v, q, bias, activation)


def others(x):
    """As many values, and other ones, without end."""
    for seed in count(1):
        generator = torch.Generator().manual_seed(seed)
        yield (seed * torch.randn(x.shape, generator=generator)).to(x.dtype).cuda()


def test_a_thousand_repeats_give_equal_bits(steady):
    x, linear = steady
    first = linear(x)
    differ = (first != first).sum()
    for _ in range(1000):
        differ += (linear(x) != first).sum()
    assert differ.item() == 0


def test_graph_capture(steady):
    static, linear = steady
    linear(static)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = linear(static)
    for _, fresh in zip(range(3), others(static), strict=False):
        static.copy_(fresh)
        graph.replay()
        assert torch.equal(y, linear(fresh))


def test_two_streams(steady):
    """Calls that overlap do not share memory that one of them writes."""
    x, linear = steady
    inputs = [fresh for _, fresh in zip(range(8), others(x), strict=False)]
    want = [linear(v) for v in inputs]
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    got = [None] * len(inputs)
    for _ in range(20):
        for i, v in enumerate(inputs):
            with torch.cuda.stream(streams[i % 2]):
                got[i] = linear(v)
        torch.cuda.synchronize()
        assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))
