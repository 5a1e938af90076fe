"""Test vectors for the emitted testbenches: stimulus, and what the emulator's integers say must come out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .constant import ConstantLayer
from .dot import Dot
from .gemm import Gemm
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
    kinds = {Layer: _stream, Gemm: _tiles, ConstantLayer: _constant}
    return kinds.get(type(design), _beats)(design, seed)


def exact_products(pair, w: np.ndarray, a: np.ndarray) -> np.ndarray:
    """Products of codes as Python integers."""
    return pair.weight.grid[w].astype(object) * pair.activation.grid[a].astype(object)


def _beats(design: Mac | Dot, seed: int) -> Testbench:
    """Random codes with a stretch of extreme ones, random gaps and restarts."""
    rng = np.random.default_rng(seed)
    pair, is_mac, beats = design.pair, isinstance(design, Mac), 600
    lanes = 1 if is_mac else design.lanes
    w, a = (rng.choice(np.flatnonzero(f.is_number), (beats, lanes)) for f in (pair.weight, pair.activation))
    w[50:90], a[50:90] = _extreme(pair.weight), _extreme(pair.activation)
    valid, start = rng.random(beats) < 0.9, rng.random(beats) < 0.02
    ins = {"w_i": _lanes(w, pair.w.bits), "a_i": _lanes(a, pair.a.bits), "valid_i": valid}
    if is_mac:
        start[: design.depth] = True
        counts = valid & ~start
        ins["clear_i"] = start
    else:
        valid[0] = start[0] = True
        start &= valid
        counts = valid
        ins |= {"first_i": start, "rst_ni": np.ones(beats)}
    products = np.where(counts, exact_products(pair, w, a).sum(axis=1), 0)
    running = np.cumsum(products)
    origin = np.maximum.accumulate(np.where(start, np.arange(beats), 0))
    sums = running - running[origin] + np.where(is_mac, 0, products[origin])
    late, bits = design.depth - 1, design.accumulator_bits
    known = np.arange(beats) >= (late if is_mac else 0)  # before that the accumulator has not been started
    out = [(int(s) & ((1 << bits) - 1)) | int(c) << bits for s, c in zip(sums, counts, strict=True)]
    mask = [((1 << (bits + 1)) - 1) * int(k) for k in known]
    return _beats_bench(design.module(), ins, [0] * late + out, [0] * late + mask)


def _tiles(design: Gemm, seed: int) -> Testbench:
    """A tile of full length and some of the shortest, back to back."""
    rng = np.random.default_rng(seed)
    pair, bits = design.pair, design.accumulator_bits
    lengths = [min(design.k, 200)] + [2 * design.rows - 1] * 8
    beats, wait = sum(lengths), design.depth + 2 * design.rows + design.cols
    w = rng.choice(np.flatnonzero(pair.weight.is_number), (beats, design.cols))
    a = rng.choice(np.flatnonzero(pair.activation.is_number), (beats, design.rows))
    ends = np.cumsum(lengths) - 1
    ins = {
        "w_i": _lanes(w, pair.w.bits),
        "a_i": _lanes(a, pair.a.bits),
        "valid_i": np.ones(beats),
        "rst_ni": np.ones(beats),
    }
    ins = {name: np.concatenate([[0] * 4, v, [0] * wait]) for name, v in ins.items()}
    ins["rst_ni"][4:] = 1
    ins["last_i"] = np.isin(np.arange(beats + wait + 4), ends + 4)
    out, valid = [0] * len(ins["last_i"]), (1 << design.cols) - 1
    mask = [0] * 4 + [valid << bits * design.cols] * (beats + wait)
    for end, length in zip(ends, lengths, strict=True):
        part = slice(end - length + 1, end + 1)
        tile = pair.activation.grid[a[part]].astype(object).T @ pair.weight.grid[w[part]].astype(object)
        for i, j in np.ndindex(tile.shape):
            at = end + 4 + design.depth - 1 + 2 * i + j
            out[at] |= (int(tile[i, j]) & ((1 << bits) - 1)) << bits * j | 1 << bits * design.cols + j
            mask[at] |= ((1 << bits) - 1) << bits * j
    return _beats_bench(design.module(), ins, out, mask)


def _constant(design: ConstantLayer, seed: int) -> Testbench:
    """A vector a clock."""
    rng = np.random.default_rng(seed)
    x = rng.choice(np.flatnonzero(design.activation.is_number), (300, design.k)).astype(np.uint8)
    x[:8] = _extreme(design.activation)
    late = design.latency - 1
    ins = {"x_i": _lanes(x, design.activation.bits), "valid_i": rng.random(300) < 0.8}
    bits = design.out_bits
    out = [sum((int(v) & ((1 << bits) - 1)) << bits * n for n, v in enumerate(row)) for row in design.reference(x)]
    valid = 1 << bits * design.n
    out = [o | valid * int(v) for o, v in zip(out, ins["valid_i"], strict=True)]
    return _beats_bench(design.module(), ins, [0] * late + out, [0] * late + [2 * valid - 1] * 300)


def _beats_bench(m: Module, ins: dict, out: list[int], mask: list[int]) -> Testbench:
    """in.hex and out.hex from values of every input by name, and from output words with their masks.

    Inputs end earlier than outputs by the latency: then they are 0, except the reset.
    """
    ports = [p for p in m.ports if p.name != "clk_i"]
    in_bits, out_bits = (sum(p.bits for p in ports if p.direction == d) for d in ("input", "output"))
    rows = []
    for i in range(len(out)):
        word, place = 0, 0
        for p in (p for p in ports if p.direction == "input"):
            value = int(ins[p.name][i]) if i < len(ins[p.name]) else int(p.name == "rst_ni")
            word |= value << place
            place += p.bits
        rows.append(word)
    expected = [want | care << out_bits for want, care in zip(out, mask, strict=True)]
    files = {"in.hex": hex_text(rows, in_bits), "out.hex": hex_text(expected, 2 * out_bits)}
    return Testbench("minifloat_tb_beats.sv", _beats_top(m, in_bits, out_bits, len(rows)), files)


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
