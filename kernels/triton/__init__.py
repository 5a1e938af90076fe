"""Triton kernels: one file per algorithm. Importing this package does not import Triton; importing a kernel file does.

pack.py         canonical storage <-> the weight layout that every kernel streams
decode.py       device helpers: codes out of that layout, values out of codes, scales
gemv_float.py   few rows of x, float contract
gemm_float.py   many rows of x, float contract
gemm_scaled.py  many rows of 8-bit float x on tensor cores that apply block scales
gemm_exact.py   both sides quantized: int8 tensor cores, the contract's order of scales
quantize.py     scales and codes of activations, and back
operand.py      host: a plan record as the constants and tables that the kernels take
scaled.py       host: where gemm_scaled can be used
configs.py      host: tile shapes, which of them fit, which one is used
"""
