"""Who is measured: each contender makes `copies` callables, every one with a weight of its own."""

from __future__ import annotations

from contextlib import contextmanager

import torch

import minifloat as mf
from minifloat.ops import cuda, triton
from minifloat.ops.records import plan_record

from .cases import BATCHES, PREFERRED_BATCHES
from .measure import NotHere

OUTPUTS = 256  # that are quantized and checked; the rest repeats them: a whole weight takes the CPU a second
LARGEST_ERROR = 1e-2  # of the largest result: what a wrong kernel returns is far off, the bounds are the tests' matter


class Ours:
    """minifloat's op, the weights prepared once as a layer does; "float8": x is cast beforehand, as for _scaled_mm.

    kernels: those of ops.cuda.preferred. failed: routes ("narrow.int8") that are not to be measured.
    """

    def __init__(self, weight: str, activation: str | None, kernels: str = "", failed: frozenset[str] = frozenset()):
        self.weight, self.float8, self.kernels, self.failed = weight, activation == "float8", kernels, failed
        self.activation = None if activation in (None, "float8") else mf.QuantSpec.parse(activation)
        self.batches = PREFERRED_BATCHES if kernels else BATCHES
        self._made: dict = {}  # by shape, which the weight's numbers depend on

    def _prepared(self, w: torch.Tensor, copies: int):
        """(quantized outputs as numbers, plan, at least so many layouts): from the first outputs, repeated."""
        shape = tuple(w.shape)
        values, plan, layouts = self._made.get(shape, (None, None, []))
        if values is None:
            q = mf.quantize(w[:OUTPUTS].float().cpu(), self.weight)
            parts = [None if t is None else t.to(w.device) for t in (q.packed, q.scale_data, q.zero_points)]
            repeat = [
                t if t is None or t.shape[0] == 1 else t.repeat(-(-shape[0] // OUTPUTS), 1)[: shape[0]] for t in parts
            ]
            plan = plan_record(q.spec, self.activation, shape, 1.0 if q.tensor_scale is None else float(q.tensor_scale))
            layouts = [self._pack(*repeat, plan)]
            values = q.dequantize().double()
        layouts = layouts + [layouts[0].clone() for _ in range(copies - len(layouts))]
        self._made[shape] = values, plan, layouts
        return values, plan, layouts

    def _input(self, x: torch.Tensor) -> torch.Tensor:
        return x.to(torch.float8_e4m3fn) if self.float8 else x

    def _pack(self, packed, scales, zero_points, plan):
        return torch.ops.minifloat.pack_weight(packed, scales, zero_points, plan)

    def _linear(self, x: torch.Tensor, layout: torch.Tensor, plan: torch.Tensor, n: int) -> torch.Tensor:
        with cuda.preferred(self.kernels):
            return torch.ops.minifloat.linear.default(x, layout, plan, None, n)

    def _facts(self, x: torch.Tensor, layout: torch.Tensor, plan: torch.Tensor, n: int) -> dict[str, str]:
        """Which kernels multiply x."""
        with cuda.preferred(self.kernels):
            return {"route": cuda.route(plan, x.shape[0], x.dtype)}

    def __call__(self, x: torch.Tensor, w: torch.Tensor, copies: int):
        _, plan, layouts = self._prepared(w, copies)
        inputs, n = self._input(x), w.shape[0]
        if self.failed:
            route = self._facts(inputs, layouts[0], plan, n)["route"].replace(" ", ".")
            if route in self.failed:
                raise NotHere(f"the tests of {route} failed")
        return [lambda layout=layout: self._linear(inputs, layout, plan, n) for layout in layouts[:copies]]

    def check(self, x: torch.Tensor, w: torch.Tensor, y: torch.Tensor) -> dict:
        """Facts and {"error": of some rows, over the largest result}. Raises ArithmeticError if y is wrong."""
        values, plan, layouts = self._prepared(w, 1)
        facts = self._facts(self._input(x), layouts[0], plan, w.shape[0])
        rows = torch.cat([self._input(x)[:16], self._input(x)[-1:]]).float().cpu()
        if self.activation:
            rows = mf.quantize(rows, self.activation).dequantize()
        want = rows.double() @ values.T
        got = torch.cat([y[:16], y[-1:]])[:, :OUTPUTS].cpu().double()
        error = float((got - want).abs().max() / want.abs().max())
        if not error <= LARGEST_ERROR:  # NaN too
            raise ArithmeticError(f"{' '.join(facts.values())}: wrong by {error:.2g} of the largest result")
        return facts | {"error": error}


class Triton(Ours):
    """The same on the Triton backend, with the config that it chooses by itself."""

    def __init__(self, weight: str, activation: str | None):
        super().__init__(weight, activation)

    def _pack(self, packed, scales, zero_points, plan):
        return triton.pack_weight(packed, scales, zero_points, plan)

    def _linear(self, x, layout, plan, n):
        return torch.ops.minifloat.triton_linear.default(x, layout, plan, None, n)

    def _facts(self, x, layout, plan, n):
        with chosen() as seen:
            self._linear(x, layout, plan, n)
        return seen


@contextmanager
def chosen():
    """{"kernel", "config"} of the Triton kernel that multiplies, filled by the calls inside."""
    from minifloat.kernels.triton import configs

    choose, seen = configs.choose, {}

    def spy(problem, *rest):
        config = choose(problem, *rest)
        seen.update(kernel=getattr(problem, "kernel", problem), config=str(config))
        return config

    configs.choose = spy
    try:
        yield seen
    finally:
        configs.choose = choose


def cublas(dtype: torch.dtype):
    def make(x, w, copies):
        inputs = x.to(dtype)
        weights = [w.to(dtype).clone() for _ in range(copies)]
        return [lambda v=v: torch.nn.functional.linear(inputs, v) for v in weights]

    return make


def int4pack(x, w, copies):
    """torch._weight_int4pack_mm: 4-bit integers, groups of 128, bfloat16."""
    n, k = w.shape
    codes = torch.randint(0, 256, (n, k // 2), dtype=torch.uint8, device=x.device)
    packed = torch._convert_weight_to_int4pack(codes, 8)
    scales = torch.rand(k // 128, n, 2, dtype=torch.bfloat16, device=x.device)
    inputs, weights = x.bfloat16(), [packed.clone() for _ in range(copies)]
    return [lambda v=v: torch._weight_int4pack_mm(inputs, v, 128, scales) for v in weights]


def int_mm(x, w, copies):
    """torch._int_mm: 8-bit integers both sides, without quantizing x and without scales."""
    if x.shape[0] <= 16:
        raise NotHere("torch._int_mm needs more than 16 rows")
    inputs = torch.randint(-127, 128, x.shape, dtype=torch.int8, device=x.device)
    weights = [torch.randint(-127, 128, w.shape, dtype=torch.int8, device=x.device) for _ in range(copies)]
    return [lambda v=v: torch._int_mm(inputs, v.t()) for v in weights]


def scaled_mm(x, w, copies):
    """torch._scaled_mm: e4m3fn both sides, one scale each, without quantizing x."""
    if torch.cuda.get_device_capability() < (8, 9):
        raise NotHere("torch._scaled_mm needs compute capability 8.9")
    if x.shape[0] % 16:
        raise NotHere("torch._scaled_mm is measured with multiples of 16 rows")
    inputs = x.to(torch.float8_e4m3fn)
    weights = [w.to(torch.float8_e4m3fn).clone() for _ in range(copies)]
    one = torch.ones((), device=x.device)
    return [lambda v=v: torch._scaled_mm(inputs, v.t(), one, one, out_dtype=torch.bfloat16) for v in weights]


# Peers that are packages of their own are in packages.py.
PEERS = {
    "cuBLAS fp16": (cublas(torch.float16), 16),
    "cuBLAS bf16": (cublas(torch.bfloat16), 16),
    "torch _weight_int4pack_mm": (int4pack, 4),
    "torch _int_mm": (int_mm, 8),
    "torch _scaled_mm": (scaled_mm, 8),
}
