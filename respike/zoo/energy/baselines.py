"""Baselines: what torchvision's video networks compute on a clip of the same length. Counted, never run."""

from dataclasses import dataclass
from typing import Any

import torch
import torchvision
from torch.utils.flop_counter import FlopCounterMode

from respike.errors import SettingError
from respike.wording import suggest
from respike.zoo.energy.account import MAC_JOULES
from respike.zoo.nn.fusion import plain_attention


@dataclass(frozen=True, kw_only=True)
class BaselineEnergy:
    """What a video network does for one clip of `num_frames` RGB frames of `image_size` × `image_size` pixels."""

    name: str
    num_frames: int
    image_size: int
    macs: float
    num_parameters: int

    @property
    def joules(self) -> float:
        """Energy of one clip; every operation is a multiply-accumulate."""
        return self.macs * MAC_JOULES

    def to_json(self) -> dict[str, Any]:
        """The figures as plain JSON values."""
        return {
            "name": self.name,
            "num_frames": self.num_frames,
            "image_size": self.image_size,
            "macs": self.macs,
            "num_parameters": self.num_parameters,
            "joules": self.joules,
        }


def list_baselines() -> list[str]:
    """The names that `estimate_baseline` takes: torchvision's video networks."""
    return sorted(torchvision.models.list_models(module=torchvision.models.video))


def estimate_baseline(name: str, *, num_frames: int, image_size: int) -> BaselineEnergy:
    """Count the multiply-accumulates of a torchvision video network with 400 classes, in the way of `estimate_energy`.

    Nothing is computed: tensors have shapes alone. Raises SettingError that lists the names, or says which size the
    network does not take.
    """
    if name not in (names := list_baselines()):
        raise SettingError(f"torchvision has no video network {name!r}", suggest(name, names))
    counter = FlopCounterMode(display=False)
    with torch.device("meta"):
        network = torchvision.models.get_model(name, weights=None).eval()
        clip = torch.empty(1, 3, num_frames, image_size, image_size)
    try:
        with torch.no_grad(), plain_attention(), counter:
            network(clip)
    except (RuntimeError, ValueError, IndexError) as error:
        raise SettingError(
            f"{name} does not take {num_frames} frames of {image_size}×{image_size}",
            "leave it out, or compare at another size",
        ) from error
    return BaselineEnergy(
        name=name,
        num_frames=num_frames,
        image_size=image_size,
        macs=counter.get_total_flops() / 2,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
    )
