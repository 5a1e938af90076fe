"""Every circuit of a product is proven equal to the first one; a wrong circuit is found out."""

import pytest

from minifloat.rtl import tools
from minifloat.rtl.formal import prove_equal
from minifloat.rtl.mac import mac
from minifloat.rtl.variants import fitting

from .support import need

PAIRS = [("e2m1", "e2m1"), ("e3m2", "e3m2"), ("e2m3", "e2m3"), ("int4", "int4"), ("int3", "int3"), ("e2m1", "int8")]
PAIRS += [("ternary", "int4"), ("e4m3fn", "e4m3fn"), ("int4", "e4m3fn"), ("e5m2", "e5m2")]


@pytest.mark.parametrize(("weight", "activation"), PAIRS)
def test_circuits_are_equivalent(weight, activation):
    need(tools.yosys)
    probe = mac(weight, activation)
    first, *others = fitting(probe.pair.w, probe.pair.a)
    gold = mac(weight, activation, variant=first).module("gold")
    for variant in others:
        prove_equal(gold, mac(weight, activation, variant=variant).module(f"gate_{variant}".replace("-", "_")))


def test_pipelined_circuits_are_equivalent():
    need(tools.yosys)
    gold, gate = (mac("e2m1", "e3m2", depth=3, variant=v).module(v) for v in ("rows", "digits"))
    prove_equal(gold, gate)


def test_a_difference_is_found():
    need(tools.yosys)
    gold = mac("int4", "int4").module("gold")
    gate = mac("int4", "int4", variant="star").module("gate")
    gate.body = [line.replace("acc_q <= acc_next", "acc_q <= acc_next ^ (acc_next >> 17)") for line in gate.body]
    with pytest.raises(AssertionError, match="not proven equal"):
        prove_equal(gold, gate)
