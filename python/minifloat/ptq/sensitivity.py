"""How much a model's output reacts to the weights of each layer: Hessian traces.

Source: Dong et al., "HAWQ-V2: Hessian Aware trace-Weighted Quantization of Neural Networks", 2020.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import torch


def hessian_traces(
    loss: Callable[[], torch.Tensor], weights: Sequence[torch.Tensor], samples: int, generator: torch.Generator
) -> list[float]:
    """Estimates of the trace of the Hessian of a loss with respect to each weight, by Hutchinson's method.

    The trace of the diagonal block of one weight is the mean of v . (H v) over random vectors v of -1 and 1; that the
    vectors of all weights are drawn at once adds terms of mean zero from the other blocks.

    Args:
        loss: computes the loss, 0-d, anew at each call, from `weights`.
        weights: leaves that require grad.
        samples: random vectors. generator: where they come from.
    """
    totals = [0.0] * len(weights)
    # Fused attention has no second derivative.
    with torch.enable_grad(), torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        slopes = torch.autograd.grad(loss(), weights, create_graph=True)
        for i in range(samples):
            signs = [torch.randint(0, 2, w.shape, generator=generator).to(w.dtype) * 2 - 1 for w in weights]
            products = torch.autograd.grad(slopes, weights, signs, retain_graph=i + 1 < samples)
            for j, (v, hv) in enumerate(zip(signs, products, strict=True)):
                totals[j] += (v * hv).sum().item()
    return [total / samples for total in totals]


def divergence(output: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """KL(softmax(reference) || softmax(output)), mean over rows: a loss for class scores that needs no labels."""
    log_p, log_q = (t.reshape(-1, t.shape[-1]).log_softmax(-1) for t in (reference, output))
    return torch.nn.functional.kl_div(log_q, log_p, log_target=True, reduction="batchmean")


def relative_error(output: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Squared error over the reference's sum of squares, 0-d: a loss for any output."""
    return (output - reference).square().sum() / reference.square().sum().clamp_min(torch.finfo(torch.float32).tiny)


LOSSES = {"relative": relative_error, "kl": divergence}


def tensor_of(output) -> torch.Tensor:
    """What a model puts out, of several things the one called logits, or the first tensor.

    Raises:
        ValueError: it holds no tensor.
    """
    if isinstance(output, torch.Tensor):
        return output
    values = output
    if isinstance(output, Mapping):
        values = [output["logits"]] if "logits" in output else output.values()
    for value in values if isinstance(values, Iterable) else ():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            return value
    raise ValueError(f"the model puts out a {type(output).__name__} without a tensor: give calibrate a `forward`")
