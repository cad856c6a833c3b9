"""Energy workflow: what a network computes for one clip, in operations and joules, compared with other networks."""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from respike.common.errors import SettingError
from respike.common.progress import SILENCE
from respike.common.text import counted
from respike.data import ShardDataset, make_loader, open_shards
from respike.data.prepare_config import PrepareConfig
from respike.types import Batch
from respike.workflows.evaluation import check_or_force
from respike.workflows.inputs import batches_of, choose_spread_clips, demo_clips, open_network, prepare_config_of
from respike.zoo.device import resolve_device
from respike.zoo.energy import BaselineEnergy, EnergyReport, estimate_baseline, estimate_energy
from respike.zoo.model_options import check_image_size
from respike.zoo.models import default_image_size

DEFAULT_BASELINES = ("r3d_18", "mc3_18", "r2plus1d_18")
# pixels: 112 is the size that torchvision's 3D networks are made for, 224 that of ours
BASELINE_SIZES = (112, 224)
# Kinetics-400, which torchvision's video networks classify
_DEFAULT_NUM_CLASSES = 400


@dataclass(frozen=True, kw_only=True)
class EnergyComparison:
    """The energy of a network for one clip, and that of the networks it is compared with.

    `title` names the network and `clips` what its firing rates were measured on. A clip has `num_frames` frames of
    `image_size` × `image_size` pixels, `num_keys` of them key frames. `remarks` are reasons to trust the rates less.
    """

    title: str
    report: EnergyReport
    clips: str
    image_size: int
    num_frames: int
    num_keys: int
    baselines: tuple[BaselineEnergy, ...]
    remarks: tuple[str, ...]

    def rows(self) -> list[tuple[str, float, float, float]]:
        """Return (name, MACs, accumulates, joules) of the network, then of those it is compared with.

        The first of these, if the network has an ANN branch, is that branch alone on the key frames and on all frames.
        """
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
        """Return the comparison as plain JSON values; a `ratio` is the joules of a row over those of the network."""
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
                {"name": name, "macs": macs, "acs": acs, "joules": row_joules, "ratio": row_joules / joules}
                for name, macs, acs, row_joules in self.rows()
            ],
        }


def measure_energy(
    network: str | Path,
    data: str | Path | None = None,
    *,
    compare: Sequence[str] = DEFAULT_BASELINES,
    subset: str | None = None,
    num_clips: int = 64,
    stride: int | None = None,
    clip_length: int | None = None,
    image_size: int | None = None,
    device: str = "auto",
    force: bool = False,
) -> EnergyComparison:
    """Count what a network computes for one clip, and estimate its energy in 45 nm CMOS.

    A multiply-accumulate takes 4.6 pJ and an accumulate 0.9 pJ. Firing rates are measured on clips.

    - `network`: a checkpoint, or the name of a network, which then has random weights.
    - `data`: shards to measure firing rates on; None makes a demo video for it.
    - `compare`: names of torchvision's video networks, counted at 112 and 224 pixels if they take that size.
    - `subset`: of `data`; None is the one that the data set is scored on. At most `num_clips` of its clips are run.
    - `stride`, `clip_length`: frames a group and frames a clip of the demo video; None takes those that the checkpoint
      was trained with, or 4 and 16.
    - `image_size`: side in pixels, a multiple of 32; None takes that of the checkpoint or the network's default.
    - `device`: `auto`, `cpu`, `cuda` or `mps`.

    Raises MismatchError if the checkpoint does not fit `data`, for the same reasons as scoring; with `force` these
    reasons become remarks. Raises SettingError for settings that are not allowed, RespikeError if the network or the
    data is not found.
    """
    if data is not None and (stride or clip_length):
        given = "stride" if stride else "clip_length"
        raise SettingError(
            "stride and clip_length are only for the demo video, and data was given",
            f"leave out {given}: the shards have their own",
            setting=given,
        )
    if image_size is not None:
        check_image_size(image_size, image_size)
    torch_device = resolve_device(device)
    opened = open_network(str(network), torch_device, num_classes=_DEFAULT_NUM_CLASSES)
    spec = opened.spec
    size = image_size or (spec.image_size if spec else default_image_size(str(network)))
    eval_crop = spec.eval_crop if spec else 1.0
    remarks = [] if spec else ["the weights are random: a trained network has other firing rates"]
    batches: Iterable[Batch]
    if data is None:
        config = prepare_config_of(spec) if spec else PrepareConfig()
        config = dataclasses.replace(
            config, stride=stride or config.stride, clip_length=clip_length or config.clip_length
        )
        clips = demo_clips(config, image_size=size)
        batches = batches_of(clips, size, eval_crop)
        measured_on = f"{counted(len(clips), 'clip')} of a demo video"
        num_frames, frames_per_key = config.clip_length, config.stride
        remarks.append("firing rates were measured on a demo video, not on data")
    else:
        subset = subset or open_shards(data).spec.evaluation_subset
        stored = open_shards(data, subset)
        # random weights were trained on no data, so that any data fits them
        remarks += [] if spec is None else check_or_force(spec, stored, SILENCE, force=force)
        chosen = choose_spread_clips(stored, num_clips)
        batches = _shard_batches(chosen, size, eval_crop)
        measured_on = f"{counted(len(chosen), 'clip')} of {subset} of {data}"
        num_frames, frames_per_key = (int(stored.spec.settings[name]) for name in ("clip_length", "stride"))
    return EnergyComparison(
        title=opened.title,
        report=estimate_energy(opened.model, (batch.to(torch_device) for batch in batches)),
        clips=measured_on,
        image_size=size,
        num_frames=num_frames,
        num_keys=num_frames // frames_per_key,
        baselines=tuple(row for name in compare for row in _estimate_baselines(name, num_frames)),
        remarks=tuple(remarks),
    )


def _shard_batches(clips: ShardDataset, image_size: int, eval_crop: float) -> Iterable[Batch]:
    batch_size = max(1, min(8, len(clips)))
    return make_loader(clips, batch_size=batch_size, training=False, image_size=image_size, eval_crop=eval_crop)


def _estimate_baselines(name: str, num_frames: int) -> list[BaselineEnergy]:
    """Count a network at each of the sizes that it takes. Raises SettingError if it takes none of them."""
    found: list[BaselineEnergy] = []
    refusals: list[SettingError] = []
    for size in BASELINE_SIZES:
        try:
            found.append(estimate_baseline(name, num_frames=num_frames, image_size=size))
        except SettingError as error:
            refusals.append(error)
    if not found:
        raise refusals[-1]
    return found
