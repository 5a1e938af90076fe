"""ONNX Runtime: float32, weights of 2, 4 and 8 bits (MatMulNBits), dynamic int8 and the bare integer product.

Sessions are run with bound inputs and outputs, and small layers come several to a session, so that what Python and a
session cost is not counted against the kernel. All sessions share one thread pool, as sessions with a pool each would
fight for the cores. Copies are rows in another order: equal weights would be packed once and shared.
"""

from __future__ import annotations

from abc import abstractmethod
from functools import cache

import numpy as np
import torch

from ..environment import peers_are_restricted
from ..timing import Work
from .base import Contender, Skipped, copy_count, rotate

SPIN_S = 0.035  # measured: its threads keep a core busy for 32 ms after a run
NODES = 16  # products in one session, for small layers
LARGE = 2**22  # elements from which on a session holds a single product


@cache
def packages():
    """The onnx and onnxruntime modules.

    Raises:
        Skipped: one of them is missing.
    """
    if peers_are_restricted():
        raise Skipped("cannot be restricted to AVX2")
    try:
        import onnx
        import onnxruntime
    except ImportError as reason:
        raise Skipped(f"not installed ({reason}): make bench-peers") from None
    return onnx, onnxruntime


@cache
def session_options(threads: int, entries: tuple = ()):
    _, ort = packages()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    for key, value in entries:
        options.add_session_config_entry(key, value)
    if threads == 1:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        return options
    share_pool(threads)
    options.use_per_session_threads = False
    return options


@cache
def share_pool(threads: int) -> None:
    packages()[1].set_global_thread_pool_sizes(threads, 1)


class OnnxRuntime(Contender):
    """One operator. Subclasses say what a copy's constants are and which node uses them."""

    library = "onnxruntime"
    entries: tuple = ()  # session configuration
    input_dtype = result_dtype = np.float32

    @abstractmethod
    def constants(self, w: np.ndarray) -> dict[str, np.ndarray]:
        """The quantized weights, by input name, rows still in order."""

    @abstractmethod
    def rolled(self, constants: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
        """The same weights with every row moved down: another copy."""

    @abstractmethod
    def node(self, helper, names: list[str], shape: tuple[int, int], result: str):
        """The operator on `x` and these constants."""

    def build(self, w, target_bytes, threads):
        onnx, _ = packages()
        n, k = w.shape
        self.check(n, k)
        constants = self.constants(w.numpy())
        self.weight_bytes = sum(c.nbytes for c in constants.values())
        count = copy_count(target_bytes, self.weight_bytes)
        self.nodes = 1 if n * k >= LARGE else min(NODES, count)
        self.n, self.k, self.threads = n, k, threads
        copies = [self.rolled(constants, 16 * i % n) for i in range(-(-count // self.nodes) * self.nodes)]
        self.sessions = [self._session(copies[at : at + self.nodes]) for at in range(0, len(copies), self.nodes)]

    def check(self, n: int, k: int) -> None:
        """Raise Skipped if the operator does not take this shape."""

    def _session(self, copies: list[dict[str, np.ndarray]]):
        onnx, ort = packages()
        helper = onnx.helper
        kind_x, kind_y = (helper.np_dtype_to_tensor_dtype(np.dtype(d)) for d in (self.input_dtype, self.result_dtype))
        nodes, tensors, results = [], [], []
        for i, constants in enumerate(copies):
            named = {f"{name}_{i}": value for name, value in constants.items()}
            tensors += [onnx.numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in named.items()]
            nodes.append(self.node(helper, list(named), (self.n, self.k), f"y_{i}"))
            results.append(helper.make_tensor_value_info(f"y_{i}", kind_y, ["M", self.n]))
        inputs = [helper.make_tensor_value_info("x", kind_x, ["M", self.k])]
        graph = helper.make_graph(nodes, "linear", inputs, results, tensors)
        domains = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        model = helper.make_model(graph, opset_imports=domains, ir_version=9)
        options = session_options(self.threads, self.entries)
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])

    def given(self, x: torch.Tensor) -> np.ndarray:
        """x as the operator takes it."""
        return x.numpy()

    def work(self, x):
        _, ort = packages()
        value = ort.OrtValue.ortvalue_from_numpy(self.given(x))
        bound = []
        for session in self.sessions:
            binding = session.io_binding()
            binding.bind_ortvalue_input("x", value)
            for i in range(self.nodes):
                empty = np.empty((len(x), self.n), self.result_dtype)
                binding.bind_ortvalue_output(f"y_{i}", ort.OrtValue.ortvalue_from_numpy(empty))
            bound.append((session, binding))
        return Work(rotate(lambda pair: pair[0].run_with_iobinding(pair[1]), bound).run, self.nodes, SPIN_S)

    def output(self, x):
        return torch.from_numpy(self.sessions[0].run(["y_0"], {"x": self.given(x)})[0]).float()


class Float32(OnnxRuntime):
    name, width, arithmetic = "ort float32", 32, "float32"

    def constants(self, w):
        return {"w": w}

    def rolled(self, constants, rows):
        return {"w": np.roll(constants["w"], rows, 0).T}

    def node(self, helper, names, shape, result):
        return helper.make_node("MatMul", ["x", *names], [result])


class MatMulNBits(OnnxRuntime):
    """Codes in groups along K with float32 scales; accuracy level 4 lets it quantize x to int8."""

    def __init__(self, bits: int, group: int, lookup: bool = False):
        self.width, self._group = bits, group
        self.name = f"ort b{bits} g{group}{' lut' if lookup else ''}"
        if lookup:
            self.entries = (("mlas.use_lut_gemm", "1"),)

    def check(self, n, k):
        if k % self._group:
            raise Skipped(f"needs K % {self._group} == 0")

    def constants(self, w):
        n, k = w.shape
        bits, groups = self.width, w.reshape(n, k // self._group, self._group)
        top = 2 ** (bits - 1)
        scales = np.abs(groups).max(2) / (top - 0.5)
        codes = (np.clip(np.round(groups / scales[..., None]), -top, top - 1) + top).astype(np.uint8)
        per_byte = 8 // bits
        parts = codes.reshape(n, k // self._group, -1, per_byte) << (bits * np.arange(per_byte, dtype=np.uint8))
        return {"w": np.bitwise_or.reduce(parts, 3).astype(np.uint8), "s": scales.astype(np.float32)}

    def rolled(self, constants, rows):
        return {name: np.roll(value, rows, 0) for name, value in constants.items()}

    def node(self, helper, names, shape, result):
        n, k = shape
        settings = {"N": n, "K": k, "bits": self.width, "block_size": self._group, "accuracy_level": 4}
        return helper.make_node("MatMulNBits", ["x", *names], [result], domain="com.microsoft", **settings)


class DynamicInt8(OnnxRuntime):
    """What ONNX Runtime's dynamic quantization leaves in a model: int8 weights per row, uint8 x per tensor."""

    name, width = "ort int8 dynamic", 8

    def constants(self, w):
        scales = np.abs(w).max(1) / 127
        return {"w": np.round(w / scales[:, None]).astype(np.int8), "s": scales.astype(np.float32)}

    def rolled(self, constants, rows):
        moved = {name: np.roll(value, rows, 0) for name, value in constants.items()}
        return {**moved, "w": moved["w"].T}

    def node(self, helper, names, shape, result):
        return helper.make_node("DynamicQuantizeMatMul", ["x", *names], [result], domain="com.microsoft")


class BareInteger(OnnxRuntime):
    """MatMulInteger on x that is given as uint8: neither its quantization nor the scales of the result are counted."""

    name, width = "ort MatMulInteger bare", 8
    input_dtype, result_dtype = np.uint8, np.int32

    def constants(self, w):
        self.scales = (np.abs(w).max(1) / 127).astype(np.float32)
        return {"w": np.round(w / self.scales[:, None]).astype(np.int8), "zero": np.array(128, np.uint8)}

    def rolled(self, constants, rows):
        return {"w": np.roll(constants["w"], rows, 0).T, "zero": constants["zero"]}

    def node(self, helper, names, shape, result):
        return helper.make_node("MatMulInteger", ["x", *names], [result])

    def given(self, x):
        self.scale_of_x = (x.abs().amax() / 127).item()
        return (torch.round(x / self.scale_of_x) + 128).to(torch.uint8).numpy()

    def output(self, x):
        return super().output(x) * torch.from_numpy(self.scales * self.scale_of_x)


def contenders() -> list[Contender]:
    weights = [MatMulNBits(bits, group) for bits in (2, 4, 8) for group in (32, 128)]
    return [Float32(), *weights, MatMulNBits(2, 128, lookup=True), DynamicInt8(), BareInteger()]
