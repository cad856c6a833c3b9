"""Networks: what a command was given, a checkpoint or a network's name, → the network. One place for all commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from respike.errors import RespikeError
from respike.wording import did_you_mean

if TYPE_CHECKING:
    import torch

    from respike.data.settings import PrepareSettings
    from respike.zoo.checkpoint import CheckpointSpec
    from respike.zoo.nn.respike import ReSpike


@dataclass(frozen=True, kw_only=True)
class Network:
    """A network in evaluation mode; `spec` says what its weights are, None where they come from chance."""

    title: str
    model: "ReSpike"
    spec: "CheckpointSpec | None"


def open_checkpoint(given: str, device: "torch.device | str") -> "tuple[ReSpike, CheckpointSpec]":
    """Load the weights that `given` names: a run's folder, a checkpoint, a name of the zoo or an address.

    Raises CheckpointError where there are none or they are damaged, RespikeError where `given` names a network
    without weights.
    """
    from respike.zoo.checkpoint import load_checkpoint
    from respike.zoo.models import list_models

    if given in list_models() and not Path(given).exists():
        raise RespikeError(f"{given} is a network without weights", "name a run's folder or a .safetensors file")
    return load_checkpoint(given, device)


def open_network(given: str, device: "torch.device | str", *, num_classes: int) -> Network:
    """Load the checkpoint that `given` names, else build the network of that name with weights from chance.

    `num_classes` is for the latter. Raises RespikeError that lists the names where `given` is neither.
    """
    import torch

    from respike.zoo.catalog import names_weights
    from respike.zoo.checkpoint import names_near
    from respike.zoo.models import create_model, list_models

    names = list_models()
    if given in names and not Path(given).exists():
        torch.manual_seed(0)
        return Network(title=given, model=create_model(given, num_classes=num_classes).to(device).eval(), spec=None)
    if not names_weights(given):
        asked = did_you_mean(given, [*names, *names_near(Path(given))])
        raise RespikeError(
            f"there is no checkpoint and no network {given!r}",
            f"{asked}name a run's folder, a .safetensors file, or one of {', '.join(names)}",
        )
    model, spec = open_checkpoint(given, device)
    return Network(title=given, model=model, spec=spec)


def settings_of(spec: "CheckpointSpec") -> "PrepareSettings":
    """How the clips that a checkpoint was trained on were prepared. Raises RespikeError where it does not say."""
    import dataclasses

    from respike.data.settings import PrepareSettings

    names = {field.name for field in dataclasses.fields(PrepareSettings)}
    given = {name: value for name, value in spec.data.settings.items() if name in names}
    if lacking := [name for name in ("stride", "clip_length", "threshold", "color") if name not in given]:
        raise RespikeError(
            f"the checkpoint does not say with which {lacking[0]} its clips were prepared",
            "train it on prepared shards",
        )
    try:
        return PrepareSettings(**given)
    except TypeError as error:
        raise RespikeError(f"the checkpoint's prepare settings are of the wrong type: {error}") from error
