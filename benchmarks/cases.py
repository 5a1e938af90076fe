"""What is measured: shapes, batch sizes, formats, threads; the quick subset and everything."""

from __future__ import annotations

from dataclasses import dataclass, field

SHAPES = [(4096, 4096), (11008, 4096), (4096, 14336), (1536, 576), (576, 1536), (1536, 384)]
BATCHES = [1, 4, 16, 64, 256, 1024]
THREADS = [1, 2]

INTEGERS = [f"int{bits}-row" for bits in range(2, 9)]
MINIFLOATS = [f"{name}-row" for name in ("e2m1", "e3m0", "e2m2", "e3m1", "e2m3", "e3m2", "e3m3", "e4m3fn", "e5m2")]
FULL_FORMATS = [
    *(["binary-row", "ternary-row"] + INTEGERS + ["int4-g128", "e1m1-row", "e2m0-row"] + MINIFLOATS),
    *("e2m1-g128", "mxfp4", "nvfp4", "mxfp4:mxfp4", "int2-row:int2-row", "nf4:", "e2m1-row:", "mxfp4:"),
]
QUICK_FORMATS = [
    *("int2-row", "int3-row", "e1m1-row", "int4-row", "int4-g128", "e2m1-row", "mxfp4", "int5-row", "e2m2-row"),
    *("e3m1-row", "int6-row", "e2m3-row", "e3m2-row", "int8-row", "e3m4-row", "e4m3fn-row", "e5m2-row"),
    *("nf4:", "int2-row:int2-row"),
    "int8-row:int7-row",  # what torch's fbgemm rounds activations to
]
# (shape, batches): the large layer at every batch size but the largest, and the two small layers at M = 1.
QUICK_CELLS = [((4096, 4096), [1, 4, 16, 64, 256]), ((1536, 384), [1]), ((576, 1536), [1])]


@dataclass
class Options:
    """What to run. Lists that are empty mean: what the subset says."""

    full: bool = False
    shapes: list[tuple[int, int]] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    formats: list[str] = field(default_factory=list)
    peers: list[str] | None = None  # parts of names; None: all, []: float32 only
    threads: list[int] = field(default_factory=list)
    isa: str = ""
    peer_isa: str = "native"
    copies_mb: int = 160
    seconds: float = 4.0  # per cell, after which no new round starts
    min_rounds: int = 5
    max_rounds: int = 40

    @property
    def cells(self) -> list[tuple[tuple[int, int], list[int]]]:
        """(N, K) and the batch sizes to run at it."""
        if self.shapes:
            return [(shape, self.batches or BATCHES[:5]) for shape in self.shapes]
        if self.full:
            return [(shape, self.batches or BATCHES) for shape in SHAPES]
        return [(shape, self.batches or batches) for shape, batches in QUICK_CELLS]

    @property
    def chosen_formats(self) -> list[str]:
        return self.formats or (FULL_FORMATS if self.full else QUICK_FORMATS)

    @property
    def chosen_threads(self) -> list[int]:
        return self.threads or (THREADS if self.full else THREADS[-1:])


def split_format(text: str) -> tuple[str, str | None]:
    """'e2m1-row' -> with int8 activations per row; 'e2m1-row:mxint8' -> with those; 'nf4:' -> float activations."""
    weight, colon, activation = text.partition(":")
    return weight, (activation or None) if colon else "int8-row"


def parse_shape(text: str) -> tuple[int, int]:
    """'4096,4096' or '4096x4096' -> (N, K)."""
    n, k = text.replace("x", ",").split(",")
    return int(n), int(k)


def add_options(add) -> None:
    """Declare the options: `add` is argparse's add_argument or pytest's addoption."""
    add("--full", action="store_true", help="every shape, batch size, format and thread count; hours")
    add("--shapes", default="", help="N,K pairs separated by blanks: '4096,4096 1536,384'")
    add("--batches", default="", help="batch sizes M separated by commas")
    add("--formats", default="", help="weight[:activation] separated by commas; 'nf4:' keeps x in float32")
    add("--peers", default="all", help="'all', 'none', or parts of names separated by commas: 'ort,Q4_0'")
    add("--threads", default="", help="thread counts separated by commas")
    add("--isa", default="", help="our kernels' instruction set; the peers keep theirs")
    add("--peer-isa", default="native", choices=["native", "avx2"], help="what torch, MKL and oneDNN may use")
    add("--copies-mb", default=160, type=int, help="weights rotate over copies of at least this size in all")
    add("--seconds", default=4.0, type=float, help="time for one cell")
    add("--out", default="", help="where to write the results; a folder or a .json file")


def read_options(parsed) -> Options:
    """Options from what argparse returned, or from pytest's config.option."""
    numbers = {
        name: [int(word) for word in getattr(parsed, name).split(",") if word] for name in ("batches", "threads")
    }
    peers = {"all": None, "none": []}.get(parsed.peers, [word for word in parsed.peers.split(",") if word])
    return Options(
        full=parsed.full,
        shapes=[parse_shape(word) for word in parsed.shapes.split()],
        formats=[word for word in parsed.formats.split(",") if word],
        peers=peers,
        isa=parsed.isa,
        peer_isa=parsed.peer_isa,
        copies_mb=parsed.copies_mb,
        seconds=parsed.seconds,
        **numbers,
    )
