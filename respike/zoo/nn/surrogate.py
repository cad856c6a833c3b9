"""Surrogate gradients: how a gradient passes a spike, whose own derivative is nought nearly everywhere."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from respike.registry import Registry

# (gradient of the spikes, u = h - threshold, α) → gradient of h, all tensors of one shape, whichever it is; u is the
# function's own to overwrite
Surrogate = Callable[[Tensor, Tensor, float], Tensor]
# where each is about as steep as the arctangent of α = 2 is published to be
USUAL_ALPHAS = {"arctan": 2.0, "rectangle": 2.0, "sigmoid": 4.0, "triangle": 1.0}
SURROGATES: Registry[Surrogate] = Registry("surrogate gradient")


@SURROGATES.register("arctan")
def arctan_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike as if the step were an arctangent: times (α/2) / (1 + (π α u / 2)²).

    `overshoot` is u = h - threshold. Source: Fang et al., ICCV 2021, which takes α = 2.
    """
    # (2/α) · (1 + (π α u / 2)²), so that one division does all
    denominator = overshoot.square_().mul_(math.pi**2 * alpha / 2).add_(2 / alpha)
    return torch.div(grad_spikes, denominator, out=denominator)


@SURROGATES.register("rectangle")
def rectangle_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike within 1/α of the threshold, times α/2; block it elsewhere."""
    return grad_spikes * (overshoot.abs() < 1 / alpha) * (alpha / 2)


@SURROGATES.register("sigmoid")
def sigmoid_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike as if the step were a logistic curve: times α σ(α u) (1 - σ(α u)).

    Its tails fall off exponentially, where the arctangent's reach far. Source: Zenke and Ganguli, Neural Computation
    2018, in the form that SpikingJelly has it; usual is α = 4.
    """
    risen = overshoot.mul_(alpha).sigmoid_()
    return (1 - risen).mul_(risen).mul_(alpha).mul_(grad_spikes)


@SURROGATES.register("triangle")
def triangle_gradient(grad_spikes: Tensor, overshoot: Tensor, alpha: float) -> Tensor:
    """Pass a gradient through a spike within 1/α of the threshold, times α (1 - α |u|); block it elsewhere.

    Neurons far from firing learn nothing, so that gradients are sparse. Source: Bellec et al., NeurIPS 2018; usual is
    α = 1.
    """
    return overshoot.abs_().mul_(-alpha).add_(1).clamp_min_(0).mul_(alpha).mul_(grad_spikes)
