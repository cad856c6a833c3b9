"""Traceable: a network whose neurons are plain tensor operations, for exporters that cannot follow our own kernels."""

import copy

import torch
from torch import Tensor, nn

from respike.color import Color
from respike.errors import RespikeError
from respike.zoo.nn.lif import LIF
from respike.zoo.nn.respike import ReSpike


class PlainLIF(nn.Module):
    """What `LIF` computes, without its backward pass: each step written out, nothing done in place."""

    def __init__(self, neurons: LIF) -> None:
        super().__init__()
        self.settings, self.tau = neurons.settings, neurons.tau

    def forward(self, current: Tensor, num_steps: int) -> Tensor:
        """Run `num_steps` steps on `current` `[num_steps · G, ...]`; return the spikes, 0 or 1, in the same shape."""
        steps = current.reshape(num_steps, -1, *current.shape[1:])
        kept, fired = torch.zeros_like(steps[0]), []
        for step in range(num_steps):
            potential = torch.lerp(kept, steps[step], 1 / self.tau)
            spikes = (potential >= self.settings.threshold).to(current.dtype)
            is_hard = self.settings.reset == "hard"
            kept = potential * (1 - spikes) if is_hard else potential - spikes * self.settings.threshold
            fired.append(spikes)
        return torch.stack(fired).reshape(current.shape)


class TraceableNetwork(nn.Module):
    """A copy of a network on the CPU, in evaluation mode, with `PlainLIF` neurons and the colour of its clips fixed."""

    def __init__(self, model: ReSpike, color: Color) -> None:
        super().__init__()
        self.network = copy.deepcopy(model).cpu().eval()
        self.color: Color = color
        for parent in list(self.network.modules()):
            for name, child in list(parent.named_children()):
                if type(child) is LIF:
                    setattr(parent, name, PlainLIF(child))
                elif isinstance(child, LIF):
                    raise RespikeError(
                        f"neurons of the kind {type(child).__name__} cannot be exported", "use plain LIF"
                    )

    def forward(self, keys: Tensor, residuals: Tensor) -> Tensor:
        """Classify clips as `ReSpike.forward` does."""
        logits: Tensor = self.network(keys, residuals, self.color)
        return logits
