"""Provenance: what a score was made on, with what and how, so that a number never stands alone."""

import dataclasses
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from respike import __version__
from respike.errors import RespikeError


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What lies behind a score.

    - The data: `dataset`, `split`, `subset`, `settings` of `respike prepare`, `fingerprint`; of its videos, all
      subsets together, `num_listed` and `num_skipped` (missing or broken, so that nothing could be scored); `missing`
      names those of the subset, None where the shards do not say of which subset they are.
    - The network: `checkpoint` as it was named, `weights_sha256`, `network`, `branches`, `image_size` in pixels,
      `epoch`, and the fingerprint of the data it was `trained_on`.
    - How: `clips_asked` of a video (None: all stored), `crops` of a clip, the side of a crop as a share of the short
      side, `eval_crop`; `device`; `amp`, the mixed precision, None where an earlier respike did not say;
      `respike_version`, `torch_version`.
    - `overruled`: the reasons for which checkpoint and data do not fit, where the score was forced.
    """

    dataset: str
    split: int | None
    subset: str
    settings: Mapping[str, Any]
    fingerprint: str
    num_listed: int
    num_skipped: int
    checkpoint: str
    weights_sha256: str
    network: str
    branches: str
    image_size: int
    epoch: int
    trained_on: str
    clips_asked: int | None
    crops: int
    device: str
    overruled: tuple[str, ...] = ()
    missing: tuple[str, ...] | None = None
    eval_crop: float = 1.0
    amp: str | None = None
    respike_version: str = __version__
    torch_version: str = field(default_factory=lambda: str(torch.__version__))

    def to_json(self) -> dict[str, Any]:
        """The provenance as plain JSON values."""
        lists = {"overruled": list(self.overruled), "missing": None if self.missing is None else list(self.missing)}
        return dataclasses.asdict(self) | {"settings": dict(self.settings)} | lists

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> "Provenance":
        """Read what `to_json` gave. Raises RespikeError that names a missing or unknown field."""
        try:
            missing = value.get("missing")
            lists = {
                "overruled": tuple(value["overruled"]),
                "missing": None if missing is None else tuple(map(str, missing)),
            }
            return cls(**{**value, **lists})
        except (KeyError, TypeError) as error:
            raise RespikeError(f"the provenance does not hold what it should: {error}") from error


def describe_device(device: torch.device) -> str:
    """The device with the name of its chip: `cpu (x86_64)`, `cuda (NVIDIA H100 80GB HBM3)`."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return f"{device.type} ({name})"
