"""Test vectors for the emitted testbenches: stimulus, and what the emulator's integers say must come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .dot import Dot
from .layer import Layer
from .layer_simulation import hex_text, input_beats
from .mac import Mac
from .module import Module, Port
from .simulate import integers_of


@dataclass(frozen=True)
class Testbench:
    """skeleton: file of kernels/rtl. top: the tb module's text. files: in.hex and out.hex."""

    skeleton: str
    top: str
    files: dict[str, str]


def testbench(design, seed: int = 0) -> Testbench:
    """The self-checking testbench of a design."""
    if isinstance(design, Layer):
        return _stream(design, seed)
    return _beats(design, seed)


def exact_products(pair, w: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Products of codes as Python integers."""
    return pair.weight.grid[w].astype(object) * pair.activation.grid[a].astype(object)


def _beats(design: Mac | Dot, seed: int) -> Testbench:
    rng = np.random.default_rng(seed)
    m = design.module()
    lanes = design.lanes if isinstance(design, Dot) else 1
    beats = 600
    w, a = (
        rng.choice(np.flatnonzero(f.is_number), (beats, lanes)) for f in (design.pair.weight, design.pair.activation)
    )
    w[50:90], a[50:90] = _extreme(design.pair.weight), _extreme(design.pair.activation)
    valid = rng.random(beats) < 0.9
    start = rng.random(beats) < 0.02
    ins = {"w_i": _lanes(w, design.pair.w.bits), "a_i": _lanes(a, design.pair.a.bits), "valid_i": valid}
    start[: design.depth] = True
    products = exact_products(design.pair, w, a).sum(axis=1)
    if isinstance(design, Mac):
        ins["clear_i"] = start
        counts, starts_with = valid & ~start, 0
    else:
        start &= valid
        start[0] = valid[0] = True
        ins |= {"first_i": start, "rst_ni": np.ones(beats)}
        counts, starts_with = valid, 1
    total, sums = 0, []
    for i in range(beats):
        kept = 0 if start[i] else total
        total = kept + int(products[i]) * int(counts[i]) if (starts_with or not start[i]) else 0
        sums.append(total)
    late = design.depth - 1
    acc_bits = design.accumulator_bits
    rows, expected = [], []
    for i in range(beats + late):
        word, place = 0, 0
        for p in [p for p in m.ports if p.direction == "input" and p.name != "clk_i"]:
            value = int(ins[p.name][i]) if i < beats else int(p.name == "rst_ni")
            word |= value << place
            place += p.bits
        rows.append(word)
        j = i - late
        known = j >= design.depth - 1  # before that the accumulator has not been started
        want = (sums[max(j, 0)] & ((1 << acc_bits) - 1)) | (int(counts[max(j, 0)]) << acc_bits)
        expected.append((int(known) << (acc_bits + 1)) | want)
    in_bits = sum(p.bits for p in m.ports if p.direction == "input") - 1
    files = {"in.hex": hex_text(rows, in_bits), "out.hex": hex_text(expected, acc_bits + 2)}
    return Testbench("minifloat_tb_beats.sv", _beats_top(m, in_bits, acc_bits + 1, len(rows)), files)


def _extreme(f) -> int:
    numbers = np.flatnonzero(f.is_number)
    return int(numbers[np.argmin(f.values[numbers])])


def _lanes(codes: np.ndarray, bits: int) -> np.ndarray:
    return (codes.astype(object) << (bits * np.arange(codes.shape[1]))).sum(axis=1)


def _beats_top(m: Module, in_bits: int, out_bits: int, beats: int) -> str:
    tb = Module("tb", [f"Drives {m.name} from in.hex and compares with out.hex."])
    for name, bits in (("clk", 1), ("stimulus", in_bits), ("answer", out_bits)):
        tb.wire(name, bits)
    pins = {"clk_o": "clk", "in_o": "stimulus", "out_i": "answer"}
    tb.instance(f"minifloat_tb_beats #(.IN_W({in_bits}), .OUT_W({out_bits}), .BEATS({beats}))", "u_tb", pins)
    tb.instance(m.name, "u_dut", _slices(m.ports))
    return tb.render().replace("module tb (\n);", "module tb;")


def _slices(ports: list[Port]) -> dict[str, str]:
    """Ports in order, each on the next bits of stimulus or answer."""
    pins, used = {"clk_i": "clk"}, {"input": 0, "output": 0}
    for p in ports:
        if p.name == "clk_i":
            continue
        name, low = ("stimulus" if p.direction == "input" else "answer"), used[p.direction]
        pins[p.name] = f"{name}[{low + p.bits - 1}:{low}]" if p.bits > 1 else f"{name}[{low}]"
        used[p.direction] = low + p.bits
    return pins


def _stream(layer: Layer, seed: int, vectors: int | None = None) -> Testbench:
    rng = np.random.default_rng(seed)
    vectors = vectors or max(2, min(8, 40000 // layer.clocks_a_vector))
    x = rng.choice(np.flatnonzero(layer.pair.activation.is_number), (vectors, layer.k)).astype(np.uint8)
    x[0] = _extreme(layer.pair.activation)
    data, last = input_beats(layer, x)
    rows = integers_of(data, 32 * data.shape[1] + 1, False).astype(object) + (last.astype(object) << layer.in_width)
    ends = np.arange(vectors * layer.n) % layer.n == layer.n - 1
    results = [int(v) & ((1 << layer.out_width) - 1) for v in layer.reference(x).ravel()]
    expected = [v | (int(e) << layer.out_width) for v, e in zip(results, ends, strict=True)]
    files = {
        "in.hex": hex_text([int(r) for r in rows], layer.in_width + 1),
        "out.hex": hex_text(expected, layer.out_width + 1),
    }
    tb = Module("tb", [f"Streams {vectors} vectors through {layer.name} and compares with out.hex."])
    sizes = {"IN_W": layer.in_width, "OUT_W": layer.out_width, "IN_BEATS": len(rows), "OUT_BEATS": len(expected)}
    sizes["TIMEOUT"] = 4 * vectors * layer.clocks_a_vector + 10000
    pins = {"clk_o": "clk_i", "rst_no": "rst_ni"}
    for port in layer.module().ports:
        tb.wire(port.name, port.bits)
        if port.name.startswith(("s_", "m_")):
            other = port.name.removesuffix("_i").removesuffix("_o") + ("_o" if port.direction == "input" else "_i")
            pins[other] = port.name
    header = ", ".join(f".{key}({value})" for key, value in sizes.items())
    tb.instance(f"minifloat_tb_stream #({header})", "u_tb", pins)
    tb.instance(layer.name, "u_dut", {p.name: p.name for p in layer.module().ports})
    return Testbench("minifloat_tb_stream.sv", tb.render().replace("module tb (\n);", "module tb;"), files)
