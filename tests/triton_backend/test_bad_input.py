"""Bad calls to the Triton ops fail with the text of the CPU ops."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import minifloat as mf
from minifloat.ops import triton
from minifloat.ops.records import operand_record
from triton_backend.device import DEVICE, to_device

OPS = ("linear", "linear_backward", "pack_weight", "restore_weight", "pack", "unpack", "quantize", "dequantize")
CPU = SimpleNamespace(**{name: getattr(torch.ops.minifloat, name) for name in OPS}, prepare=mf.ops.prepare)


def bad_calls(ops, device):
    """{what is wrong: a call}."""
    q = mf.quantize(torch.ones(8, 64), "int4-g32")
    q = to_device(q) if ops is triton else q
    weight, plan = ops.prepare(q, None)
    x, grad = torch.ones(3, 64, device=device), torch.ones(3, 8, device=device)
    codes, scales = q.packed, q.scale_data
    pointed = mf.quantize(torch.ones(8, 64), "uint4-g32-zp")
    pointed = to_device(pointed) if ops is triton else pointed
    _, pointed_plan = ops.prepare(pointed, None)
    operand, row = operand_record(mf.QuantSpec.parse("int4-g32")), operand_record(mf.QuantSpec.parse("int4-row"))
    one, small = torch.ones(3, 2, device=device), torch.ones(3, 64, dtype=torch.uint8, device=device)
    types = (torch.float64, torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool, torch.complex64)
    return {
        **{f"linear: x of {t}": lambda t=t: ops.linear(x.to(t), weight, plan, None, 8) for t in types},
        "linear: x of another float8": lambda: ops.linear(x.to(torch.float8_e4m3fnuz), weight, plan, None, 8),
        "linear: x of too few k's": lambda: ops.linear(x[:, :60], weight, plan, None, 8),
        "linear: x without dimensions": lambda: ops.linear(x[0, 0], weight, plan, None, 8),
        "linear: short weight": lambda: ops.linear(x, weight[:-1], plan, None, 8),
        "linear: weight of int8": lambda: ops.linear(x, weight.view(torch.int8), plan, None, 8),
        "linear: strided weight": lambda: ops.linear(x, weight.repeat(2)[::2], plan, None, 8),
        "linear: other N": lambda: ops.linear(x, weight, plan, None, 9),
        "linear: long bias": lambda: ops.linear(x, weight, plan, x[0, :9], 8),
        "linear: bias of two dimensions": lambda: ops.linear(x, weight, plan, grad[:1], 8),
        "linear: short plan": lambda: ops.linear(x, weight, plan[1:], None, 8),
        "linear: plan of int8": lambda: ops.linear(x, weight, plan.view(torch.int8), None, 8),
        "linear: plan of zeros": lambda: ops.linear(x, weight, torch.zeros_like(plan), None, 8),
        # Several things are wrong: the same one is named.
        "linear: weight and N": lambda: ops.linear(x.double(), weight[:-1], plan, None, 9),
        "linear: N and x": lambda: ops.linear(x.double(), weight, plan, grad, 9),
        "linear: x and bias": lambda: ops.linear(x[:, :3].double(), weight, plan, grad, 8),
        "linear_backward: other K": lambda: ops.linear_backward(grad, weight, plan, 63),
        "linear_backward: short weight": lambda: ops.linear_backward(grad, weight[:-1], plan, 64),
        "linear_backward: grad of other N": lambda: ops.linear_backward(x, weight, plan, 64),
        "linear_backward: grad of int64": lambda: ops.linear_backward(grad.long(), weight, plan, 64),
        "pack_weight: codes of other N": lambda: ops.pack_weight(codes[1:], scales, None, plan),
        "pack_weight: codes of int16": lambda: ops.pack_weight(codes.short(), scales, None, plan),
        "pack_weight: too few scales": lambda: ops.pack_weight(codes, scales[1:], None, plan),
        "pack_weight: scales of 2 bytes": lambda: ops.pack_weight(codes, scales.half(), None, plan),
        "pack_weight: zero points": lambda: ops.pack_weight(codes, scales, pointed.zero_points, plan),
        "pack_weight: no zero points": lambda: ops.pack_weight(codes, scales, None, pointed_plan),
        "pack_weight: wide zero points": lambda: ops.pack_weight(
            codes, scales, pointed.zero_points.short(), pointed_plan
        ),
        "restore_weight: short": lambda: ops.restore_weight(weight[:-1], plan),
        "restore_weight: strided": lambda: ops.restore_weight(weight.repeat(2)[::2], plan),
        "pack: 9 bits": lambda: ops.pack(small, 9),
        "pack: 0 bits": lambda: ops.pack(small, 0),
        "pack: codes of int32": lambda: ops.pack(small.int(), 4),
        "pack: one row": lambda: ops.pack(small[0], 4),
        "unpack: 9 bits": lambda: ops.unpack(small, 9, 64),
        "unpack: short rows": lambda: ops.unpack(small, 4, 100),
        "unpack: bytes of int64": lambda: ops.unpack(small.long(), 8, 64),
        "unpack: one row": lambda: ops.unpack(small[0], 8, 64),
        "quantize: one row": lambda: ops.quantize(x[0], row),
        "quantize: x of int64": lambda: ops.quantize(x.long(), row),
        "quantize: x of float8": lambda: ops.quantize(x.to(torch.float8_e5m2), row),
        "quantize: groups": lambda: ops.quantize(x[:, :60], operand),
        "quantize: no operand": lambda: ops.quantize(x, operand[1:]),
        "dequantize: codes of int64": lambda: ops.dequantize(small.long(), one, None, 1.0, operand),
        "dequantize: one row": lambda: ops.dequantize(small[0], one, None, 1.0, operand),
        "dequantize: groups": lambda: ops.dequantize(small[:, :60], one, None, 1.0, operand),
        "dequantize: no operand": lambda: ops.dequantize(small, one, None, 1.0, plan),
    }


def text_of(call):
    with pytest.raises(ValueError) as caught:
        call()
    text = str(caught.value).replace("a GPU", "the CPU").replace("cuda:0", "cpu")
    return re.sub(r"\b(must be|expected) (\d+) contiguous bytes on the CPU, got (\d+)", _sizes, text)


def _sizes(match):
    """Backends lay weights out in different numbers of bytes: how many are missing stays."""
    what, wanted, got = match.groups()
    return f"{what} N contiguous bytes on the CPU, got N - {int(wanted) - int(got)}"


def test_the_same_text():
    """But for types of x: there that of the CUDA ops, which take 8-bit floats too."""
    want = {what: text_of(call) for what, call in bad_calls(CPU, "cpu").items()}
    types = "expected float32, bfloat16, float16, float8_e4m3fn or float8_e5m2"
    assert types in (Path(__file__).parents[2] / "csrc" / "cuda.cpp").read_text()
    for what in want:
        if what.startswith("linear"):
            want[what] = want[what].replace("expected float32, bfloat16 or float16", types)
    got = {what: text_of(call) for what, call in bad_calls(triton, DEVICE).items()}
    assert got == want


def test_codes_that_do_not_fit():
    """On a GPU looking for them would wait for the device."""
    codes = torch.zeros(3, 5, dtype=torch.uint8)
    codes[1, 2], codes[2, 0] = 8, 255
    with pytest.raises(ValueError) as caught:
        torch.ops.minifloat.pack(codes, 3)
    if DEVICE == "cpu":
        with pytest.raises(ValueError, match=f"^{re.escape(str(caught.value))}$"):
            triton.pack(codes, 3)
    else:
        assert not triton.pack(codes.to(DEVICE), 3).any(1)[0]


def test_tensors_on_other_devices():
    """Called as functions: dispatch sends a meta tensor to the op's fake."""
    q = to_device(mf.quantize(torch.ones(8, 64), "int4-g32"))
    weight, plan = triton.prepare(q, None)
    x = torch.ones(3, 64, device=DEVICE)
    here = re.escape(str(x.device))
    with pytest.raises(ValueError, match=f"^linear: bias is on meta but x is on {here}$"):
        triton.linear(x, weight, plan, torch.ones(8, device="meta"), 8)
    with pytest.raises(ValueError, match="^linear: x is on meta but the weight is on "):
        triton.linear(x.to("meta"), weight, plan, None, 8)
    with pytest.raises(ValueError, match="^linear_backward: x is on meta but the weight is on "):
        triton.linear_backward(torch.ones(3, 8, device="meta"), weight, plan, 64)
