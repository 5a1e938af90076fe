"""What is measured: shapes, batches, our formats."""

from __future__ import annotations

SHAPES = ((4096, 4096), (4096, 14336), (8192, 8192))  # (N, K)
BATCHES = (1, 16, 64, 4096, 256, 4)  # in the order in which they are measured
PREFERRED_BATCHES = (1, 64, 4096)  # where kernels are compared that one may prefer

# (name, weight, activation, kernels). activation: None multiplies float16, "float8" x of float8_e4m3fn (float contract)
# kernels: those to use where they can be (ops.cuda.preferred), "" for what would run anyway.
OURS = (
    ("e2m1-g128", "e2m1-g128", None, ""),
    ("int4-g128", "int4-g128", None, ""),
    ("e2m3-row", "e2m3-row", None, ""),
    ("int4-row", "int4-row", None, ""),
    ("int4-row, product", "int4-row", None, "product"),
    ("int8-row", "int8-row", None, ""),
    ("nf4-g64", "nf4-g64", None, ""),
    ("e3m2-row", "e3m2-row", None, ""),
    ("int3-g128", "int3-g128", None, ""),
    ("int2-g128", "int2-g128", None, ""),
    ("e2m1-row x int8-row", "e2m1-row", "int8-row", ""),
    ("int4-g128 x int8-row", "int4-g128", "int8-row", ""),
    ("mxfp4 x int8-row", "mxfp4", "int8-row", ""),
    ("e3m2-row x int8-row", "e3m2-row", "int8-row", ""),
    ("int8-row x int8-row", "int8-row", "int8-row", ""),
    ("int4-g128, wide", "int4-g128", None, "wide"),
    ("int4-g128 x int8-row, wide", "int4-g128", "int8-row", "wide"),
    ("e2m1-g128 x float8", "e2m1-g128", "float8", ""),
    ("e4m3fn-row x float8", "e4m3fn-row", "float8", ""),
    ("binary-g128", "binary-g128", None, ""),
    ("binary-g128, tables", "binary-g128", None, "tables"),
    ("int2-row x int2-row, bits", "int2-row", "int2-row", "bits"),
    ("int2-row x int2-row, usual", "int2-row", "int2-row", "usual"),
    ("binary-row x binary-row, bits", "binary-row", "binary-row", "bits"),
)
OURS_FULL = (
    ("mxfp4", "mxfp4", None, ""),
    ("nvfp4", "nvfp4", None, ""),
    ("int1-g128, tables", "int1-g128", None, "tables"),
    ("int1-g128", "int1-g128", None, ""),
    ("e4m3fn-row", "e4m3fn-row", None, ""),
    ("mxfp4 x mxint8", "mxfp4", "mxint8", ""),
    ("e2m3-row x int8-row", "e2m3-row", "int8-row", ""),
    ("binary-row x binary-row, usual", "binary-row", "binary-row", "usual"),
    ("binary-row x int2-row, bits", "binary-row", "int2-row", "bits"),
    ("ternary-g128 x int2-row, bits", "ternary-g128", "int2-row", "bits"),
    ("ternary-g128 x int2-row, usual", "ternary-g128", "int2-row", "usual"),
)

# (weight, activation) for the Triton backend. Its kernels are compiled at their first call, seconds for each.
TRITON = (
    ("e2m1-row", None),
    ("int4-g128", None),
    ("mxfp4", None),
    ("int8-row", None),
    ("e2m3-row", None),
    ("int3-g128", None),
    ("int2-g128", None),
    ("e2m1-row", "int8-row"),
    ("int4-g128", "int8-row"),
    ("mxfp4", "int8-row"),
    ("int8-row", "int8-row"),
    ("mxfp4", "float8"),
    ("mxfp8-e4m3", "float8"),
)
