"""What tests of several backends check, and the hard inputs they share."""

import numpy as np
import torch

import minifloat as mf


def assert_within_float_bound(y, q, x, bias):
    """y, of x's dtype, is x @ w.T + bias of the float contract: within the bound of docs/numerics.md."""
    assert y.dtype == x.dtype
    exact = x.double().numpy() @ mf.emulator.dequantize(q).T
    bound = mf.emulator.float_bound(x, q, bias)
    if bias is not None:
        exact = exact + bias.double().numpy()
    if x.dtype != torch.float32:  # one more rounding, to the output type, whose subnormals are equally far apart
        to = torch.finfo(x.dtype)
        bound = bound + to.eps / 2 * np.maximum(np.abs(exact) + bound, to.smallest_normal)
    assert (np.abs(y.double().numpy() - exact) <= bound).all()


def any_codes(spec, shape):
    """A weight (N, K) of random codes, specials aside: minus zero and unused codes too, unlike quantized numbers."""
    q = mf.quantize(torch.randn(shape), spec)
    numbers = torch.from_numpy(np.flatnonzero(spec.format.is_number).astype(np.uint8))
    packed = torch.ops.minifloat.pack(numbers[torch.randint(0, len(numbers), shape)], spec.format.bits)
    return mf.QTensor(spec, q.shape, packed, q.scale_data, q.zero_points, q.tensor_scale)
