"""Energy workflow: a network and clips to operations and joules, beside other networks."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from respike.common.errors import SettingError
from respike.common.text import counted
from respike.workflows.inputs import Network, open_network, settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from respike.data import ShardDataset
    from respike.data.prepare_config import PrepareConfig
    from respike.types import Batch
    from respike.zoo.energy import BaselineEnergy, EnergyReport


DEFAULT_BASELINES = ("r3d_18", "mc3_18", "r2plus1d_18")
# the size that torchvision's 3D networks are made for, and the one that ours are
BASELINE_SIZES = (112, 224)
_DEFAULT_SIZES = {"respike_tiny": 64}
_DEFAULT_SIZE, _DEFAULT_CLASSES = 224, 400


@dataclass(frozen=True, kw_only=True)
class EnergyComparison:
    """All that there is to tell: the network's account, what it was measured on, and what others take.

    `num_frames` is that of a clip, `num_keys` its key frames'; `remarks` say what makes the rates worth less.
    """

    title: str
    report: "EnergyReport"
    clips: str
    image_size: int
    num_frames: int
    num_keys: int
    baselines: "tuple[BaselineEnergy, ...]"
    remarks: tuple[str, ...]

    def rows(self) -> list[tuple[str, float, float, float]]:
        """(name, MACs, accumulates, joules) of the network and of what stands beside it."""
        report, size = self.report, f"at {self.image_size}²"
        rows = [(f"{self.title} {size}", report.macs, report.acs, report.joules)]
        if "ANN" in (branches := report.by_branch()):
            macs, _, joules = branches["ANN"]
            scale = self.num_frames / self.num_keys
            rows.append((f"ANN alone, {counted(self.num_keys, 'key frame')} {size}", macs, 0.0, joules))
            rows.append((f"ANN alone, all {self.num_frames} frames {size}", macs * scale, 0.0, joules * scale))
        rows += [(f"{other.name} at {other.image_size}²", other.macs, 0.0, other.joules) for other in self.baselines]
        return rows

    def to_json(self) -> dict[str, Any]:
        """The account as `respike energy --json` prints it; a ratio is the other's joules over the network's."""
        joules = self.report.joules
        return {
            "network": self.title,
            "clips": self.clips,
            "image_size": self.image_size,
            "num_frames": self.num_frames,
            "num_keys": self.num_keys,
            "remarks": list(self.remarks),
            "report": self.report.to_json(),
            "compared": [
                {"name": name, "macs": macs, "acs": acs, "joules": energy, "ratio": energy / joules}
                for name, macs, acs, energy in self.rows()
            ],
        }


def compare_energy(
    network: str,
    *,
    data: str | None,
    subset: str | None,
    clips: int,
    stride: int | None,
    clip_length: int | None,
    image_size: int | None,
    compare: tuple[str, ...],
    device: str,
    force: bool,
) -> EnergyComparison:
    """Open the network, find clips, measure, and count what it is compared with.

    Raises MismatchError where a checkpoint and `data` do not fit, as scoring does; `force` makes the reasons remarks.
    """
    from respike.zoo.device import resolve_device
    from respike.zoo.energy import estimate_energy
    from respike.zoo.model_options import check_image_size

    if data is not None and (stride or clip_length):
        raise SettingError("--stride and --clip-length are of the demo video", "leave them out: --data has its own")
    if image_size is not None:
        check_image_size(image_size, image_size)
    place = resolve_device(device)
    opened = open_network(network, place, num_classes=_DEFAULT_CLASSES)
    size = image_size or (opened.spec.image_size if opened.spec else _DEFAULT_SIZES.get(network, _DEFAULT_SIZE))
    crop = opened.spec.eval_crop if opened.spec else 1.0
    remarks = [] if opened.spec else ["the weights are from chance: firing rates of a trained network are others"]
    if data is None:
        settings = _demo_settings(opened, stride, clip_length)
        found, batches = _demo_batches(settings, size, crop)
        remarks.append("firing rates were measured on a demo video, not on data")
        shape = (settings.clip_length, settings.stride)
    else:
        subset, stored = _open_subset(data, subset)
        remarks += _find_overruled(opened, stored, force=force)
        found, batches, shape = _shard_batches(stored, f"{subset} of {data}", clips, size, crop)
    report = estimate_energy(opened.model, (batch.to(place) for batch in batches))
    return EnergyComparison(
        title=opened.title,
        report=report,
        clips=found,
        image_size=size,
        num_frames=shape[0],
        num_keys=shape[0] // shape[1],
        baselines=_count_baselines(compare, shape[0]),
        remarks=tuple(remarks),
    )


def _demo_settings(opened: Network, stride: int | None, clip_length: int | None) -> "PrepareConfig":
    from respike.data.prepare_config import PrepareConfig

    settings = settings_of(opened.spec) if opened.spec else PrepareConfig()
    return dataclasses.replace(
        settings, stride=stride or settings.stride, clip_length=clip_length or settings.clip_length
    )


def _demo_batches(settings: "PrepareConfig", image_size: int, eval_crop: float) -> "tuple[str, Iterable[Batch]]":
    from respike.workflows.inputs import batches_of, demo_clips

    clips = demo_clips(settings, image_size=image_size)
    return f"{counted(len(clips), 'clip')} of a demo video", batches_of(clips, image_size, eval_crop)


def _open_subset(data: str, subset: str | None) -> "tuple[str, ShardDataset]":
    """The name and the clips of `subset` (None: the one that the data set is scored on)."""
    from respike.data import open_shards

    name = subset or open_shards(data).spec.evaluation_subset
    return name, open_shards(data, name)


def _find_overruled(opened: Network, stored: "ShardDataset", *, force: bool) -> tuple[str, ...]:
    """Why the clips do not fit the network, refused unless `force` overrules it; weights from chance fit all."""
    from respike.common.progress import SILENCE
    from respike.workflows.evaluation import check_or_force

    return () if opened.spec is None else check_or_force(opened.spec, stored, SILENCE, force=force)


def _shard_batches(
    stored: "ShardDataset", name: str, most: int, image_size: int, eval_crop: float
) -> "tuple[str, Iterable[Batch], tuple[int, int]]":
    from respike.data import make_loader
    from respike.workflows.inputs import spread

    chosen = spread(stored, most)
    settings = chosen.spec.settings
    batches = make_loader(
        chosen, batch_size=min(8, len(chosen)), training=False, image_size=image_size, eval_crop=eval_crop
    )
    shape = (int(settings["clip_length"]), int(settings["stride"]))
    return f"{counted(len(chosen), 'clip')} of {name}", batches, shape


def _count_baselines(names: tuple[str, ...], num_frames: int) -> "tuple[BaselineEnergy, ...]":
    """Count each network at each size that it takes; one that takes neither is an error."""
    from respike.zoo.energy import estimate_baseline

    counted: list[BaselineEnergy] = []
    for name in () if names == ("none",) else names or DEFAULT_BASELINES:
        refused: SettingError | None = None
        num_before = len(counted)
        for size in BASELINE_SIZES:
            try:
                counted.append(estimate_baseline(name, num_frames=num_frames, image_size=size))
            except SettingError as error:
                refused = error
        if len(counted) == num_before and refused is not None:
            raise refused
    return tuple(counted)
