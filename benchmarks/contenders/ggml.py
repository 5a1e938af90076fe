"""ggml's matrix product, of llama.cpp (package llama-cpp-python) and of ik_llama.cpp (ik-llama-cpp-python), by ctypes.

A graph holds several products with weights of their own, as a model's graph does, so what starting a graph costs is
shared by them. Quantizing x is inside ggml_mul_mat, hence counted.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_bool, c_char_p, c_float, c_int, c_int64, c_size_t, c_void_p
from functools import cache
from pathlib import Path

import torch

from ..environment import PEERS, llama_folder
from ..timing import Work
from .base import Contender, Skipped, copy_count, rotate

F32 = 0
NODES = 16  # products in one graph at most
GRAPH_SIZE = 2 * NODES + 8  # products and what they read

# name: (type number, bits, rows that are interleaved)
LLAMA = {
    "TQ2_0": (35, 2, 1),
    "Q2_K": (10, 2, 8),
    "Q3_K": (11, 3, 1),
    "Q4_0": (2, 4, 8),
    "Q4_K": (12, 4, 8),
    "IQ4_NL": (20, 4, 8),
    "MXFP4": (39, 4, 8),
    "Q5_K": (13, 5, 8),
    "Q6_K": (14, 6, 8),
    "Q8_0": (8, 8, 8),
}
IK = {
    "IQ2_BN": (135, 2, 1),
    "IQ2_BN_R4": (335, 2, 4),
    "Q2_K_R4": (210, 2, 4),
    "Q3_K": (11, 3, 1),
    "Q3_K_R4": (211, 3, 4),
    "Q4_0": (2, 4, 1),
    "Q4_0_R8": (202, 4, 8),
    "Q4_K_R4": (212, 4, 4),
    "IQ4_NL_R4": (220, 4, 4),
    "MXFP4": (39, 4, 1),
    "Q5_K_R4": (213, 5, 4),
    "Q6_K": (14, 6, 1),
    "Q6_K_R4": (214, 6, 4),
    "Q8_0": (8, 8, 1),
    "Q8_0_R8": (208, 8, 8),
}


class InitParams(ctypes.Structure):
    _fields_ = [("mem_size", c_size_t), ("mem_buffer", c_void_p), ("no_alloc", c_bool)]


LOG = ctypes.CFUNCTYPE(None, c_int, c_char_p, c_void_p)
QUIET = LOG(lambda level, text, user: None)  # llama.cpp reports every tensor that it repacks
SIGNATURES = {
    "ggml_init": (c_void_p, [InitParams]),
    "ggml_free": (None, [c_void_p]),
    "ggml_blck_size": (c_int64, [c_int]),
    "ggml_row_size": (c_size_t, [c_int, c_int64]),
    "ggml_tensor_overhead": (c_size_t, []),
    "ggml_graph_overhead_custom": (c_size_t, [c_size_t, c_bool]),
    "ggml_type_name": (c_char_p, [c_int]),
    "ggml_new_tensor_2d": (c_void_p, [c_void_p, c_int, c_int64, c_int64]),
    "ggml_mul_mat": (c_void_p, [c_void_p, c_void_p, c_void_p]),
    "ggml_new_graph_custom": (c_void_p, [c_void_p, c_size_t, c_bool]),
    "ggml_build_forward_expand": (None, [c_void_p, c_void_p]),
    "ggml_quantize_chunk": (c_size_t, [c_int, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_void_p]),
    "ggml_get_data": (c_void_p, [c_void_p]),
    "ggml_backend_alloc_ctx_tensors_from_buft": (c_void_p, [c_void_p, c_void_p]),
    "ggml_backend_buffer_free": (None, [c_void_p]),
    "ggml_backend_tensor_set": (None, [c_void_p, c_void_p, c_size_t, c_size_t]),
    "ggml_backend_cpu_buffer_type": (c_void_p, []),
    "ggml_backend_cpu_init": (c_void_p, []),
    "ggml_backend_cpu_set_n_threads": (None, [c_void_p, c_int]),
    "ggml_backend_graph_compute": (c_int, [c_void_p, c_void_p]),
}


class Library:
    """ggml's functions, which newer versions spread over two files."""

    def __init__(self, files: list[Path]):
        for file in files:
            if not file.exists():
                raise Skipped(f"not installed ({file.name} is missing): make bench-peers")
        self.files = [ctypes.CDLL(str(file)) for file in files]
        for name, (result, arguments) in SIGNATURES.items():
            function = self.find(name)
            function.restype, function.argtypes = result, arguments
            setattr(self, name.removeprefix("ggml_"), function)
        if hasattr(self.files[0], "ggml_log_set"):
            self.files[0].ggml_log_set(QUIET, None)
        self.backend = self.backend_cpu_init()

    def find(self, name: str):
        for file in self.files:
            if hasattr(file, name):
                return getattr(file, name)
        raise Skipped(f"this ggml has no {name}")

    @cache  # noqa: B019 - libraries live as long as the process
    def repack_buffer(self) -> int:
        """llama.cpp's buffer type that interleaves rows as it is filled."""
        registry = self.find("ggml_backend_cpu_reg")
        registry.restype = c_void_p
        lookup = self.find("ggml_backend_reg_get_proc_address")
        lookup.restype, lookup.argtypes = c_void_p, [c_void_p, c_char_p]
        address = lookup(registry(), b"ggml_backend_dev_get_extra_bufts")
        buffer_name = self.find("ggml_backend_buft_name")
        buffer_name.restype, buffer_name.argtypes = c_char_p, [c_void_p]
        types = ctypes.CFUNCTYPE(POINTER(c_void_p), c_void_p)(address)(None)
        for i in range(8):
            if not types[i]:
                break
            if buffer_name(types[i]) == b"CPU_REPACK":
                return types[i]
        raise Skipped("this ggml does not repack on this CPU")


@cache
def library(package: str) -> Library:
    if package == "ik":
        return Library([PEERS / "ik_llama_cpp" / "lib" / "libggml.so"])
    folder = llama_folder()
    return Library([folder / "libggml-base.so", folder / "libggml-cpu.so"])


class Ggml(Contender):
    """One type of one of the two libraries."""

    def __init__(self, package: str, kind: str, repack: bool = False):
        self.library = {"ll": "llama.cpp", "ik": "ik_llama.cpp"}[package]
        self.name = f"{package} {kind}{' repacked' if repack else ''}"
        self._package, self._repack = package, repack
        self._type, self.width, self._rows = (LLAMA if package == "ll" else IK)[kind]

    def build(self, w, target_bytes, threads):
        g = self.g = library(self._package)
        n, k = w.shape
        block = 256 if "IQ2_BN" in self.name else g.blck_size(self._type)  # it says 64, and then aborts or errs
        if k % block or (n % self._rows and (self._repack or self._package == "ik")):
            raise Skipped(f"needs K % {block} == 0 and N % {self._rows} == 0")
        g.backend_cpu_set_n_threads(g.backend, threads)
        self.shape, self.weight_bytes = (n, k), n * g.row_size(self._type, k)
        data = ctypes.create_string_buffer(self.weight_bytes)
        w = w.contiguous()
        g.quantize_chunk(self._type, w.data_ptr(), data, 0, n, k, None)
        count = copy_count(target_bytes, self.weight_bytes)
        self.memory = [Memory(g, count)]
        self.weights = [g.new_tensor_2d(self.memory[0].context, self._type, k, n) for _ in range(count)]
        self.memory[0].allocate(g.repack_buffer() if self._repack else g.backend_cpu_buffer_type())
        if self._repack and not extra(self.weights[0]):
            raise Skipped("this ggml has no repacked form of it on this CPU")
        for tensor in self.weights:
            g.backend_tensor_set(tensor, data, 0, self.weight_bytes)

    def _graphs(self, x: torch.Tensor, batches: list[list[int]]) -> tuple[list[int], int]:
        """A graph for each list of weights, each product with an x of its own: (graphs, the very first result)."""
        g, (_, k) = self.g, self.shape
        for memory in self.memory[1:]:  # of the previous batch size
            memory.free()
        count = sum(map(len, batches))
        memory = Memory(g, 2 * count, len(batches))
        self.memory[1:] = [memory]
        inputs = [g.new_tensor_2d(memory.context, F32, k, len(x)) for _ in range(count)]
        pairs = zip([w for batch in batches for w in batch], inputs, strict=True)
        results = [g.mul_mat(memory.context, w, i) for w, i in pairs]
        memory.allocate(g.backend_cpu_buffer_type())
        for tensor in inputs:
            g.backend_tensor_set(tensor, x.data_ptr(), 0, x.numel() * 4)
        graphs, following = [], iter(results)
        for batch in batches:
            graphs.append(g.new_graph_custom(memory.context, GRAPH_SIZE, False))
            for _ in batch:
                g.build_forward_expand(graphs[-1], next(following))
        return graphs, results[0]

    def work(self, x):
        n, k = self.shape
        nodes = max(1, min(NODES, len(self.weights), 2**26 // (n * k * len(x))))
        whole = len(self.weights) // nodes * nodes
        graphs, _ = self._graphs(x.contiguous(), [self.weights[at : at + nodes] for at in range(0, whole, nodes)])
        compute, backend = self.g.backend_graph_compute, self.g.backend
        return Work(rotate(lambda graph: compute(backend, graph), graphs).run, nodes)

    def output(self, x):
        graphs, result = self._graphs(x.contiguous(), [self.weights[:1]])
        self.g.backend_graph_compute(self.g.backend, graphs[0])
        values = (c_float * (len(x) * self.shape[0])).from_address(self.g.get_data(result))
        return torch.frombuffer(values, dtype=torch.float32).view(len(x), -1).clone()

    def release(self):
        for memory in getattr(self, "memory", []):
            memory.free()
        super().release()


class Memory:
    """A context, which describes tensors, and the buffer with their data. ik_llama.cpp allows 64 contexts in all."""

    def __init__(self, g: Library, tensors: int, graphs: int = 0):
        size = (tensors + 8) * g.tensor_overhead() + graphs * g.graph_overhead_custom(GRAPH_SIZE, False)
        self.g, self.buffer = g, None
        self.context = g.init(InitParams(size + 4096, None, True))
        if not self.context:
            raise Skipped("ggml has no context left")

    def allocate(self, buffer_type: int) -> None:
        self.buffer = self.g.backend_alloc_ctx_tensors_from_buft(self.context, buffer_type)
        if not self.buffer:
            raise Skipped("ggml could not allocate the tensors")

    def free(self) -> None:
        if self.buffer:
            self.g.backend_buffer_free(self.buffer)
        self.g.free(self.context)


def extra(tensor: int) -> int:
    """The field of ggml_tensor in which a repacking buffer leaves its kernels; 0 if it has none for this type."""
    # type, buffer, ne[4], nb[4], op, op_params[16], flags, src[10], view_src, view_offs, data, name[64], extra
    offset = 8 + 8 + 32 + 32 + 4 + 64 + 4 + 80 + 8 + 8 + 8 + 64
    return c_int64.from_address(tensor + offset).value


def contenders() -> list[Contender]:
    plain = [Ggml("ll", kind) for kind in LLAMA]
    repacked = [Ggml("ll", kind, repack=True) for kind, (_, _, rows) in LLAMA.items() if rows > 1]
    return plain + repacked + [Ggml("ik", kind) for kind in IK]
